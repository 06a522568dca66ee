// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace piserve::load {

// The smallest value that at least `percent` of all values do not exceed
// (nearest rank). `sorted` ascending; 0 if empty. 0 < percent <= 100.
double Percentile(const std::vector<double>& sorted, double percent);

// Of a set of values, all in their unit.
struct Distribution {
  int count = 0;
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p95 = 0;
  double p99 = 0;
  double p999 = 0;
  double max = 0;
};

Distribution Describe(std::vector<double> values);

// Mean rows of the waves that were run, told by the requests: a wave of w rows
// is seen by w requests, so each counts for 1 / w of a wave. 0 if empty.
double MeanWaveRows(const std::vector<int>& rows_by_request);

}  // namespace piserve::load
