// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace piserve::load {

double Percentile(const std::vector<double>& sorted, double percent) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(percent * sorted.size() / 100.0);
  return sorted[std::clamp<std::size_t>(rank, 1, sorted.size()) - 1];
}

Distribution Describe(std::vector<double> values) {
  Distribution result;
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  result.count = values.size();
  result.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / values.size();
  result.p50 = Percentile(values, 50);
  result.p90 = Percentile(values, 90);
  result.p95 = Percentile(values, 95);
  result.p99 = Percentile(values, 99);
  result.p999 = Percentile(values, 99.9);
  result.max = values.back();
  return result;
}

double MeanWaveRows(const std::vector<int>& rows_by_request) {
  double waves = 0;
  int requests = 0;
  for (int rows : rows_by_request) {
    if (rows < 1) continue;
    waves += 1.0 / rows;
    ++requests;
  }
  return requests == 0 ? 0 : requests / waves;
}

}  // namespace piserve::load
