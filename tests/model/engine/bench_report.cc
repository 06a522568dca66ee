// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/bench_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace piserve::engine {
namespace {

constexpr int kSteps = 10;  // openpi's

bool SameButSteps(const WaveShape& a, const WaveShape& b) {
  return a.rows == b.rows && a.cameras == b.cameras &&
         a.prompt_tokens == b.prompt_tokens;
}

void PrintShape(const WaveShape& shape) {
  std::printf("%5d %4d %5d %5d", shape.rows, shape.cameras, shape.prompt_tokens,
              shape.steps);
}

}  // namespace

ActionDifference DifferenceOf(std::span<const float> a,
                              std::span<const float> b) {
  ActionDifference difference;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<double>(a[i]) - b[i];
    difference.mse += d * d / a.size();
    difference.max = std::max(difference.max, std::abs(d));
  }
  return difference;
}

double Rms(std::span<const float> values) {
  double sum = 0;
  for (const double value : values) sum += value * value;
  return std::sqrt(sum / values.size());
}

void CompareWithTenSteps(std::vector<BenchRow>& rows) {
  for (BenchRow& row : rows) {
    for (const BenchRow& ten : rows) {
      if (ten.shape.steps != kSteps || !SameButSteps(row.shape, ten.shape)) {
        continue;
      }
      row.from_ten = DifferenceOf(ten.actions, row.actions);
    }
  }
}

void PrintHeader() {
  std::printf(
      " rows cams  toks steps    p50 ms    p99 ms  p99.9 ms samples/s floor%% "
      "  vision  prefill  denoise  copies watts J/chunk\n");
}

void Print(const BenchRow& row) {
  PrintShape(row.shape);
  std::printf(
      " %9.3f %9.3f %9.3f %9.1f %6.1f %8.3f %8.3f %8.3f %7.3f %5.0f %7.2f\n",
      row.p50, row.p99, row.p999, 1000 * row.shape.rows / row.p50,
      100 * row.floor / row.p50, row.stages.at("vision"),
      row.stages.at("prefill"), row.stages.at("denoise"),
      row.stages.at("h2d") + row.stages.at("d2h"), row.watts, row.joules);
  std::fflush(stdout);
}

void PrintDifferences(const std::vector<BenchRow>& rows) {
  const bool any = std::any_of(rows.begin(), rows.end(), [](const auto& row) {
    return row.from_ten.has_value() && row.shape.steps != kSteps;
  });
  if (!any) return;
  std::printf(
      "\nfrom the actions of 10 steps, normalised, same input and noise\n"
      " rows cams  toks steps    p50 ms       MSE  max diff       rms\n");
  for (const BenchRow& row : rows) {
    if (!row.from_ten.has_value()) continue;
    PrintShape(row.shape);
    std::printf(" %9.3f %9.2e %9.2e %9.2e\n", row.p50, row.from_ten->mse,
                row.from_ten->max, Rms(row.actions));
  }
}

void PrintStagesAlone(const std::vector<BenchRow>& rows) {
  const bool any = std::any_of(rows.begin(), rows.end(), [](const auto& row) {
    return !row.alone.empty();
  });
  if (!any) return;
  std::printf(
      "\nstages in the wave and alone, ms\n"
      " rows cams  toks steps   vision    alone  prefill    alone  denoise"
      "    alone\n");
  for (const BenchRow& row : rows) {
    if (row.alone.empty()) continue;
    PrintShape(row.shape);
    for (const char* stage : {"vision", "prefill", "denoise"}) {
      std::printf(" %8.3f %8.3f", row.stages.at(stage), row.alone.at(stage));
    }
    std::printf("\n");
  }
}

nlohmann::json Json(const BenchRow& row) {
  nlohmann::json json = {{"rows", row.shape.rows},
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
  if (!row.alone.empty()) json["stage_alone_p50_ms"] = row.alone;
  if (row.from_ten.has_value()) {
    json["from_10_steps"] = {{"mse", row.from_ten->mse},
                             {"max", row.from_ten->max},
                             {"actions_rms", Rms(row.actions)}};
  }
  return json;
}

}  // namespace piserve::engine
