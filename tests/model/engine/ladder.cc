// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/ladder.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/engine/policy.h"
#include "tests/model/engine/bench_call.h"
#include "tests/model/engine/bench_report.h"

namespace piserve::engine {
namespace {

constexpr int kCalls = 100;
constexpr int kTwoCameraCalls = 30;
// How far apart actions of one rung and the next may be, of their rms: what the
// manifest allows a bf16 implementation from openpi's own, whose rows differ by
// 3.4e-2 themselves (tests/golden/full/MANIFEST.md).
constexpr double kTolerance = 5e-2;

struct Switch {
  const char* name;
  bool Optimisations::*field;
};

// From the bottom up.
constexpr Switch kSwitches[] = {
    {"captured graphs", &Optimisations::graphs},
    {"dependent launch", &Optimisations::dependent_launch},
    {"absent cameras left out", &Optimisations::compaction},
    {"state token once", &Optimisations::state_once},
    {"GEMM algorithms timed", &Optimisations::timed_gemms},
    {"own attention", &Optimisations::own_attention},
    {"GeGLU in the GEMM", &Optimisations::fused_geglu},
    {"long sums in parts", &Optimisations::split_sums},
    {"layer norms in the GEMM", &Optimisations::fused_norm},
    {"large tiles for many tokens", &Optimisations::large_tiles},
    {"one kernel denoises", &Optimisations::persistent_denoising}};

struct Rung {
  std::string name;
  absl::Status status = {};
  double p50 = 0;          // ms
  double two_cameras = 0;  // p50, ms
  std::vector<float> actions = {};
  double distance = 0;  // largest, from the last rung's, of their rms
};

absl::Status Measure(std::shared_ptr<const checkpoint::Weights> weights,
                     const Optimisations& optimisations, WaveShape shape,
                     Rung& rung) {
  EnginePolicy::Options options;
  options.batch_sizes = {shape.rows};
  options.step_counts = {shape.steps};
  options.optimisations = optimisations;
  auto policy = EnginePolicy::Create(std::move(weights), options);
  if (!policy.ok()) return policy.status();
  auto times = TimeCalls(**policy, shape, kCalls);
  if (!times.ok()) return times.status();
  shape.cameras = 2;
  const auto two = TimeCalls(**policy, shape, kTwoCameraCalls);
  if (!two.ok()) return two.status();
  rung.p50 = Percentile(times->ms, 0.5);
  rung.two_cameras = Percentile(two->ms, 0.5);
  rung.actions = std::move(times->actions);
  return absl::OkStatus();
}

std::vector<Rung> Climb(
    const std::shared_ptr<const checkpoint::Weights>& weights,
    const WaveShape& shape) {
  Optimisations optimisations;
  for (const Switch& each : kSwitches) optimisations.*each.field = false;
  std::vector<Rung> rungs = {{.name = "everything off"}};
  for (const Switch& each : kSwitches) rungs.push_back({.name = each.name});
  for (std::size_t i = 0; i < rungs.size(); ++i) {
    if (i > 0) optimisations.*kSwitches[i - 1].field = true;
    rungs[i].status = Measure(weights, optimisations, shape, rungs[i]);
    std::fprintf(stderr, "ladder %zu/%zu\n", i + 1, rungs.size());
  }
  return rungs;
}

// How far each is from the last one.
absl::Status Compare(std::vector<Rung>& rungs) {
  absl::Status first;
  const std::vector<float>& want = rungs.back().actions;
  for (Rung& rung : rungs) {
    absl::Status status = rung.status;
    if (status.ok() && rungs.back().status.ok()) {
      rung.distance = DifferenceOf(want, rung.actions).max / Rms(want);
      if (!(rung.distance <= kTolerance)) {
        status = absl::InternalError(
            absl::StrCat("actions are ", rung.distance,
                         " of rms from the last rung's, want ", kTolerance));
      }
    }
    if (status.ok() || !first.ok()) continue;
    first = absl::Status(status.code(),
                         absl::StrCat(rung.name, ": ", status.message()));
  }
  return first;
}

// The change from the rung below, where both were measured.
void PrintTime(double ms, double below) {
  std::printf(" %9.3f", ms);
  if (below > 0) {
    std::printf(" %+7.3f", ms - below);
  } else {
    std::printf(" %7s", "");
  }
}

void Print(const std::vector<Rung>& rungs) {
  std::printf("%-26s %9s %7s %9s %7s %9s\n", "switched on", "p50 ms", "change",
              "2 cameras", "change", "actions");
  Rung below;
  for (const Rung& rung : rungs) {
    std::printf("%-26s", rung.name.c_str());
    if (rung.status.ok()) {
      PrintTime(rung.p50, below.p50);
      PrintTime(rung.two_cameras, below.two_cameras);
      std::printf(" %9.2e\n", rung.distance);
    } else {
      std::printf(" %s\n", rung.status.ToString().c_str());
    }
    below = rung;
  }
}

}  // namespace

absl::Status RunLadder(std::shared_ptr<const checkpoint::Weights> weights,
                       const WaveShape& shape, nlohmann::json& report) {
  std::vector<Rung> rungs = Climb(weights, shape);
  const absl::Status status = Compare(rungs);
  Print(rungs);
  for (const Rung& rung : rungs) {
    if (!rung.status.ok()) continue;
    report.push_back({{"switched_on", rung.name},
                      {"p50_ms", rung.p50},
                      {"two_cameras_p50_ms", rung.two_cameras},
                      {"actions_from_last_max_of_rms", rung.distance}});
  }
  return status;
}

}  // namespace piserve::engine
