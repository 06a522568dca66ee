// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "model/policy.h"

namespace piserve::engine {

// How far two chunks are apart, in the units that they have.
struct ActionDifference {
  double mse = 0;
  double max = 0;  // absolute
};

// Of the same size.
ActionDifference DifferenceOf(std::span<const float> a,
                              std::span<const float> b);

// Root mean square.
double Rms(std::span<const float> values);

// What was measured of one shape.
struct BenchRow {
  WaveShape shape;
  double floor = 0;                      // ms
  double p50 = 0, p99 = 0, p999 = 0;     // ms
  std::map<std::string, double> stages;  // p50 in the wave, ms
  std::map<std::string, double> alone;   // p50 of a stage alone, or empty
  double joules = 0;                     // a row
  double watts = 0;
  std::vector<float> actions;  // of row 0, normalised
  // From those of 10 steps on the same input; nothing where 10 was not run.
  std::optional<ActionDifference> from_ten;
};

// Sets `from_ten` of every row whose shape was run with 10 steps too.
void CompareWithTenSteps(std::vector<BenchRow>& rows);

void PrintHeader();
void Print(const BenchRow& row);
// Tables of their own: nothing where there is nothing to tell.
void PrintDifferences(const std::vector<BenchRow>& rows);
void PrintStagesAlone(const std::vector<BenchRow>& rows);

nlohmann::json Json(const BenchRow& row);

}  // namespace piserve::engine
