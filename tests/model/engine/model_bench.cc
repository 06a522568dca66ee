// SPDX-License-Identifier: Apache-2.0
// What one call of the engine costs, by batch size.
//
//   model_bench --variant=pi0 --batch_sizes=1,8,64 --json=out.json
//   model_bench --batch_sizes=1 --steps=10,5,3,2
//   model_bench --ladder --batch_sizes=8
//
// Every size is checked before it is timed: its graphs are compared with their
// kernels when the policy starts, and its actions must be finite.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/engine/network.h"
#include "model/engine/policy.h"
#include "tests/model/engine/bench_call.h"
#include "tests/model/engine/bench_report.h"
#include "tests/model/engine/floor.h"
#include "tests/model/engine/gemm_roof.h"
#include "tests/model/engine/kernel_trace.h"
#include "tests/model/engine/ladder.h"
#include "tests/model/engine/stages_alone.h"

ABSL_FLAG(std::string, variant, "pi0", "pi0 or pi05, full size");
ABSL_FLAG(uint64_t, seed, 3, "Of the synthetic weights");
ABSL_FLAG(int, horizon, 50, "Actions in a chunk");
ABSL_FLAG(std::string, batch_sizes, "1,8,64", "Rows of a wave");
ABSL_FLAG(std::string, cameras, "3", "Live cameras");
ABSL_FLAG(std::string, prompt_tokens, "", "Valid prompt tokens; default: all");
ABSL_FLAG(std::string, steps, "10",
          "Euler steps; with 10 among them, the others' actions are compared");
ABSL_FLAG(int, calls, 200, "Timed calls of batch size 1; larger ones fewer");
ABSL_FLAG(absl::Duration, period, absl::ZeroDuration(),
          "From the begin of a call to that of the next, at least");
ABSL_FLAG(int, waves_in_flight, 1,
          "2: a wave is submitted while the one before it runs, as the server "
          "does; its time counts from that one's end");
ABSL_FLAG(int, micro_rows, 8, "Rows whose prefix is computed at once, at most");
ABSL_FLAG(std::string, plan, "", "Plan file to keep");
ABSL_FLAG(bool, ladder, false,
          "Only switch the optimisations on one by one, for the first shape");
ABSL_FLAG(bool, stages_alone, false, "Time each stage alone too");
ABSL_FLAG(absl::Duration, roof, absl::ZeroDuration(),
          "How long to load the device with GEMMs afterwards, for their rate");
ABSL_FLAG(std::string, trace, "",
          "File for a Chrome trace of one call of the first shape");
ABSL_FLAG(std::string, json, "", "File for the figures");

namespace piserve::engine {
namespace {

std::vector<int> Numbers(const std::string& list) {
  std::vector<int> numbers;
  for (absl::string_view part : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    int number = 0;
    if (!absl::SimpleAtoi(part, &number)) std::abort();
    numbers.push_back(number);
  }
  return numbers;
}

absl::StatusOr<BenchRow> Measure(Policy& policy, const Variant& variant,
                                 const WaveShape& shape) {
  const int calls = std::max(12, absl::GetFlag(FLAGS_calls) / shape.rows);
  auto times = TimeCalls(policy, shape, calls,
                         {.period = absl::GetFlag(FLAGS_period),
                          .in_flight = absl::GetFlag(FLAGS_waves_in_flight)});
  if (!times.ok()) return times.status();
  BenchRow row;
  row.shape = shape;
  row.floor = FloorMs(variant, shape);
  row.watts = times->joules / times->seconds;
  row.joules = times->joules / calls / shape.rows;
  row.p50 = Percentile(times->ms, 0.5);
  row.p99 = Percentile(times->ms, 0.99);
  row.p999 = Percentile(times->ms, 0.999);
  for (auto& [stage, values] : times->stages) {
    row.stages[stage] = Percentile(values, 0.5);
  }
  row.actions = std::move(times->actions);
  return row;
}

absl::Status Trace(Policy& policy, const WaveShape& shape,
                   const std::string& path) {
  auto slot = FilledSlot(policy, shape);
  if (!slot.ok()) return slot.status();
  std::unique_ptr<Slot> memory = Call(policy, *std::move(slot), shape).slot;
  KernelTrace::Start();
  Call(policy, std::move(memory), shape);
  const std::vector<KernelSpan> spans = KernelTrace::Stop();
  if (spans.empty()) {
    return absl::InternalError("trace: the driver reported no kernel");
  }
  std::printf("%s", Summary(spans).c_str());
  std::ofstream(path) << ChromeTrace(spans) << "\n";
  return absl::OkStatus();
}

double UsedGb() {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return (total - free) / 1e9;
}

EnginePolicy::Options OptionsByFlags() {
  EnginePolicy::Options options;
  options.batch_sizes = Numbers(absl::GetFlag(FLAGS_batch_sizes));
  options.step_counts = Numbers(absl::GetFlag(FLAGS_steps));
  options.plan_path = absl::GetFlag(FLAGS_plan);
  options.micro_rows = absl::GetFlag(FLAGS_micro_rows);
  options.progress = [](const std::string& line) {
    std::fprintf(stderr, "%s\n", line.c_str());
  };
  return options;
}

// Every combination that the flags ask for, step counts of a shape together.
std::vector<WaveShape> ShapesByFlags(const Variant& variant) {
  std::vector<int> prompts = Numbers(absl::GetFlag(FLAGS_prompt_tokens));
  if (prompts.empty()) prompts = {variant.max_token_len};
  std::vector<WaveShape> shapes;
  for (const int rows : Numbers(absl::GetFlag(FLAGS_batch_sizes))) {
    for (const int cameras : Numbers(absl::GetFlag(FLAGS_cameras))) {
      for (const int prompt : prompts) {
        for (const int steps : Numbers(absl::GetFlag(FLAGS_steps))) {
          shapes.push_back({rows, cameras, prompt, steps});
        }
      }
    }
  }
  return shapes;
}

absl::StatusOr<std::vector<BenchRow>> MeasureAll(
    Policy& policy, const Variant& variant,
    const std::vector<WaveShape>& shapes) {
  PrintHeader();
  std::vector<BenchRow> rows;
  for (const WaveShape& shape : shapes) {
    auto row = Measure(policy, variant, shape);
    if (!row.ok()) return row.status();
    Print(*row);
    rows.push_back(*std::move(row));
  }
  CompareWithTenSteps(rows);
  PrintDifferences(rows);
  return rows;
}

// On a network beside the policy's, which lends its own to nobody.
absl::Status MeasureStagesAlone(const checkpoint::Weights& weights,
                                std::vector<BenchRow>& rows) {
  const EnginePolicy::Options options = OptionsByFlags();
  auto network = Network::Create(weights, {.batch_sizes = options.batch_sizes,
                                           .step_counts = options.step_counts,
                                           .micro_rows = options.micro_rows});
  if (!network.ok()) return network.status();
  for (BenchRow& row : rows) {
    auto alone = TimeStagesAlone(**network, row.shape);
    if (!alone.ok()) return alone.status();
    row.alone = *std::move(alone);
  }
  PrintStagesAlone(rows);
  return absl::OkStatus();
}

// Right behind the rows, while the device is as warm as they left it.
absl::Status MeasureRoof(const Variant& variant,
                         const std::vector<BenchRow>& rows,
                         nlohmann::json& report) {
  const auto roof = MeasureGemmRoof(absl::GetFlag(FLAGS_roof));
  if (!roof.ok()) return roof.status();
  std::printf("GEMMs under this load: %.0f TFLOP/s, %.0f MHz, %.0f W\n",
              roof->tflops, roof->mhz, roof->watts);
  report["roof"] = {
      {"tflops", roof->tflops}, {"mhz", roof->mhz}, {"watts", roof->watts}};
  for (const BenchRow& row : rows) {
    std::printf("%5d rows: %.1f %% of that\n", row.shape.rows,
                100 * FloorMs(variant, row.shape, roof->tflops) / row.p50);
  }
  return absl::OkStatus();
}

std::string DeviceName() {
  cudaDeviceProp device = {};
  cudaGetDeviceProperties(&device, 0);
  return device.name;
}

absl::Status Bench(const Variant& variant,
                   std::shared_ptr<const checkpoint::Weights> weights,
                   nlohmann::json& report) {
  const absl::Time start = absl::Now();
  auto policy = EnginePolicy::Create(weights, OptionsByFlags());
  if (!policy.ok()) return policy.status();
  report["start_s"] = absl::ToDoubleSeconds(absl::Now() - start);
  report["memory_gb"] = UsedGb();
  std::printf("%s, %s, horizon %d: ready after %.1f s, %.2f GB\n",
              DeviceName().c_str(), DebugString(variant).c_str(),
              variant.action_horizon, report["start_s"].get<double>(),
              UsedGb());
  const std::vector<WaveShape> shapes = ShapesByFlags(variant);
  auto rows = MeasureAll(**policy, variant, shapes);
  if (!rows.ok()) return rows.status();
  if (absl::GetFlag(FLAGS_stages_alone)) {
    absl::Status alone = MeasureStagesAlone(*weights, *rows);
    if (!alone.ok()) return alone;
  }
  if (absl::GetFlag(FLAGS_roof) > absl::ZeroDuration()) {
    if (absl::Status s = MeasureRoof(variant, *rows, report); !s.ok()) return s;
  }
  for (const BenchRow& row : *rows) report["rows"].push_back(Json(row));
  const std::string path = absl::GetFlag(FLAGS_trace);
  return path.empty() ? absl::OkStatus()
                      : Trace(**policy, shapes.front(), path);
}

absl::Status Ladder(const Variant& variant,
                    std::shared_ptr<const checkpoint::Weights> weights,
                    nlohmann::json& report) {
  std::printf("%s, %s, horizon %d\n", DeviceName().c_str(),
              DebugString(variant).c_str(), variant.action_horizon);
  return RunLadder(std::move(weights), ShapesByFlags(variant).front(),
                   report["ladder"]);
}

absl::Status Run() {
  Variant variant =
      absl::GetFlag(FLAGS_variant) == "pi05" ? Pi05Variant() : Pi0Variant();
  variant.action_horizon = absl::GetFlag(FLAGS_horizon);
  auto weights =
      checkpoint::MakeSyntheticWeights(variant, absl::GetFlag(FLAGS_seed));
  if (!weights.ok()) return weights.status();
  nlohmann::json report = {
      {"device", DeviceName()},
      {"variant", absl::GetFlag(FLAGS_variant)},
      {"horizon", variant.action_horizon},
      {"waves_in_flight", absl::GetFlag(FLAGS_waves_in_flight)}};
  const auto run = absl::GetFlag(FLAGS_ladder) ? Ladder : Bench;
  const absl::Status status = run(variant, *std::move(weights), report);
  if (const std::string path = absl::GetFlag(FLAGS_json); !path.empty()) {
    std::ofstream(path) << report.dump(1) << "\n";
  }
  return status;
}

}  // namespace
}  // namespace piserve::engine

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  const absl::Status status = piserve::engine::Run();
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
