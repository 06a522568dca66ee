// SPDX-License-Identifier: Apache-2.0
// What one call of the engine costs, by batch size.
//
//   model_bench --variant=pi0 --batch_sizes=1,8,64 --json=out.json
//
// Every size is checked before it is timed: its graphs are compared with their
// kernels when the policy starts, and its actions must be finite.
#include <cuda_runtime.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/engine/policy.h"
#include "model/noise.h"
#include "tests/model/engine/energy_meter.h"
#include "tests/model/engine/floor.h"
#include "tests/model/engine/kernel_trace.h"
#include "tests/support/synthetic_inputs.h"

ABSL_FLAG(std::string, variant, "pi0", "pi0 or pi05, full size");
ABSL_FLAG(uint64_t, seed, 3, "Of the synthetic weights");
ABSL_FLAG(int, horizon, 50, "Actions in a chunk");
ABSL_FLAG(std::string, batch_sizes, "1,8,64", "Rows of a wave");
ABSL_FLAG(std::string, cameras, "3", "Live cameras");
ABSL_FLAG(std::string, prompt_tokens, "", "Valid prompt tokens; default: all");
ABSL_FLAG(std::string, steps, "10", "Euler steps");
ABSL_FLAG(int, calls, 200, "Timed calls of batch size 1; larger ones fewer");
ABSL_FLAG(int, micro_rows, 8, "Rows whose prefix is computed at once, at most");
ABSL_FLAG(std::string, plan, "", "Plan file to keep");
ABSL_FLAG(std::string, trace, "",
          "File for a Chrome trace of one call of the first shape");
ABSL_FLAG(std::string, json, "", "File for the figures");

namespace piserve::engine {
namespace {

using Clock = std::chrono::steady_clock;

double MillisecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start)
      .count();
}

std::vector<int> Numbers(const std::string& list) {
  std::vector<int> numbers;
  for (absl::string_view part : absl::StrSplit(list, ',', absl::SkipEmpty())) {
    int number = 0;
    if (!absl::SimpleAtoi(part, &number)) std::abort();
    numbers.push_back(number);
  }
  return numbers;
}

void Fill(const Variant& variant, const WaveShape& shape, Slot& slot) {
  const int side = variant.vision.image;
  for (int i = 0; i < shape.rows; ++i) {
    const SlotRow row = slot.row(i);
    for (int c = 0; c < Variant::kCameras; ++c) {
      row.camera_mask[c] = c < shape.cameras;
      const auto image = test::SyntheticImage(3 * i + c, side, side);
      std::copy(image.begin(), image.end(),
                row.pixels.begin() + c * image.size());
    }
    const auto tokens =
        test::SyntheticTokens(i, shape.prompt_tokens, variant.vocab);
    std::copy(tokens.begin(), tokens.end(), row.tokens.begin());
    *row.token_count = shape.prompt_tokens;
    FillNoise(i, row.noise);
    FillNoise(i + 100, row.state);
  }
}

// One wave, from a filled slot to its actions in host memory.
WaveResult Call(Policy& policy, std::unique_ptr<Slot> slot,
                const WaveShape& shape) {
  std::mutex mutex;
  std::condition_variable done;
  WaveResult result;
  bool finished = false;
  policy.Submit({std::move(slot), shape}, [&](WaveResult r) {
    const std::lock_guard lock(mutex);
    result = std::move(r);
    finished = true;
    done.notify_one();
  });
  std::unique_lock lock(mutex);
  done.wait(lock, [&] { return finished; });
  return result;
}

double Percentile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  return values[std::min<std::size_t>(values.size() * p, values.size() - 1)];
}

struct Row {
  WaveShape shape;
  double floor = 0;  // ms
  double p50 = 0, p99 = 0, p999 = 0;
  std::map<std::string, double> stages;  // p50, ms
  double joules = 0;                     // a row
  double watts = 0;
};

bool Measure(Policy& policy, const Variant& variant, Row& row) {
  auto slot = policy.AcquireSlot(row.shape.rows);
  if (!slot.ok()) return false;
  Fill(variant, row.shape, **slot);
  const int calls = std::max(12, absl::GetFlag(FLAGS_calls) / row.shape.rows);
  std::unique_ptr<Slot> memory = *std::move(slot);
  std::vector<double> ms;
  std::map<std::string, std::vector<double>> stages;
  EnergyMeter meter;
  double start_joules = 0;
  Clock::time_point begin;
  for (int i = -5; i < calls; ++i) {
    if (i == 0) {
      start_joules = meter.Joules();
      begin = Clock::now();
    }
    const auto start = Clock::now();
    WaveResult result = Call(policy, std::move(memory), row.shape);
    const double took = MillisecondsSince(start);
    for (const absl::Status& status : result.row_status) {
      if (status.ok()) continue;
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return false;
    }
    memory = std::move(result.slot);
    if (i < 0) continue;
    ms.push_back(took);
    for (const StageDuration& stage : result.stages) {
      stages[stage.stage].push_back(absl::ToDoubleMilliseconds(stage.duration));
    }
  }
  const double joules = meter.Joules() - start_joules;
  row.watts = 1000 * joules / MillisecondsSince(begin);
  row.joules = joules / calls / row.shape.rows;
  row.p50 = Percentile(ms, 0.5);
  row.p99 = Percentile(ms, 0.99);
  row.p999 = Percentile(ms, 0.999);
  for (auto& [stage, values] : stages) {
    row.stages[stage] = Percentile(values, 0.5);
  }
  return true;
}

bool Trace(Policy& policy, const Variant& variant, const WaveShape& shape,
           const std::string& path) {
  auto slot = policy.AcquireSlot(shape.rows);
  if (!slot.ok()) return false;
  Fill(variant, shape, **slot);
  std::unique_ptr<Slot> memory = Call(policy, *std::move(slot), shape).slot;
  KernelTrace::Start();
  Call(policy, std::move(memory), shape);
  const std::vector<KernelSpan> spans = KernelTrace::Stop();
  if (spans.empty()) {
    std::fprintf(stderr, "trace: the driver reported no kernel\n");
    return false;
  }
  std::printf("%s", Summary(spans).c_str());
  std::ofstream(path) << ChromeTrace(spans) << "\n";
  return true;
}

void Print(const Row& row) {
  std::printf(
      "%5d %4d %5d %5d %9.3f %9.3f %9.3f %9.1f %6.1f %8.3f %8.3f %8.3f "
      "%7.3f %5.0f %7.2f\n",
      row.shape.rows, row.shape.cameras, row.shape.prompt_tokens,
      row.shape.steps, row.p50, row.p99, row.p999,
      1000 * row.shape.rows / row.p50, 100 * row.floor / row.p50,
      row.stages.at("vision"), row.stages.at("prefill"),
      row.stages.at("denoise"), row.stages.at("h2d") + row.stages.at("d2h"),
      row.watts, row.joules);
  std::fflush(stdout);
}

nlohmann::json Json(const Row& row) {
  return {{"rows", row.shape.rows},
          {"cameras", row.shape.cameras},
          {"prompt_tokens", row.shape.prompt_tokens},
          {"steps", row.shape.steps},
          {"p50_ms", row.p50},
          {"p99_ms", row.p99},
          {"p999_ms", row.p999},
          {"samples_per_s", 1000 * row.shape.rows / row.p50},
          {"floor_ms", row.floor},
          {"stage_p50_ms", row.stages},
          {"watts", row.watts},
          {"joules_per_chunk", row.joules}};
}

double UsedGb() {
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  return (total - free) / 1e9;
}

int Run() {
  const bool pi05 = absl::GetFlag(FLAGS_variant) == "pi05";
  Variant variant = pi05 ? Pi05Variant() : Pi0Variant();
  variant.action_horizon = absl::GetFlag(FLAGS_horizon);
  const absl::Time start = absl::Now();
  auto weights =
      checkpoint::MakeSyntheticWeights(variant, absl::GetFlag(FLAGS_seed));
  EnginePolicy::Options options;
  options.batch_sizes = Numbers(absl::GetFlag(FLAGS_batch_sizes));
  options.step_counts = Numbers(absl::GetFlag(FLAGS_steps));
  options.plan_path = absl::GetFlag(FLAGS_plan);
  options.micro_rows = absl::GetFlag(FLAGS_micro_rows);
  auto policy = EnginePolicy::Create(*std::move(weights), options);
  if (!policy.ok()) {
    std::fprintf(stderr, "%s\n", policy.status().ToString().c_str());
    return 1;
  }
  const double start_s = absl::ToDoubleSeconds(absl::Now() - start);
  cudaDeviceProp device = {};
  cudaGetDeviceProperties(&device, 0);
  std::printf("%s, %s, horizon %d: ready after %.1f s, %.2f GB\n", device.name,
              DebugString(variant).c_str(), variant.action_horizon, start_s,
              UsedGb());
  std::printf(
      " rows cams  toks steps    p50 ms    p99 ms  p99.9 ms samples/s floor%% "
      "  vision  prefill  denoise  copies watts J/chunk\n");
  nlohmann::json report = {{"device", device.name},
                           {"variant", absl::GetFlag(FLAGS_variant)},
                           {"horizon", variant.action_horizon},
                           {"start_s", start_s},
                           {"memory_gb", UsedGb()}};
  std::vector<int> prompts = Numbers(absl::GetFlag(FLAGS_prompt_tokens));
  if (prompts.empty()) prompts = {variant.max_token_len};
  for (const int rows : options.batch_sizes) {
    for (const int cameras : Numbers(absl::GetFlag(FLAGS_cameras))) {
      for (const int prompt : prompts) {
        for (const int steps : options.step_counts) {
          Row row;
          row.shape = {rows, cameras, prompt, steps};
          row.floor = FloorMs(variant, row.shape);
          if (!Measure(**policy, variant, row)) return 1;
          Print(row);
          report["rows"].push_back(Json(row));
        }
      }
    }
  }
  if (const std::string path = absl::GetFlag(FLAGS_trace); !path.empty()) {
    const WaveShape first = {
        .rows = options.batch_sizes.front(),
        .cameras = Numbers(absl::GetFlag(FLAGS_cameras)).front(),
        .prompt_tokens = prompts.front(),
        .steps = options.step_counts.front()};
    if (!Trace(**policy, variant, first, path)) return 1;
  }
  if (const std::string path = absl::GetFlag(FLAGS_json); !path.empty()) {
    std::ofstream(path) << report.dump(1) << "\n";
  }
  return 0;
}

}  // namespace
}  // namespace piserve::engine

int main(int argc, char** argv) {
  absl::ParseCommandLine(argc, argv);
  return piserve::engine::Run();
}
