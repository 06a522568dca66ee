// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/statistics.h"

#include <gtest/gtest.h>

#include <numeric>

namespace piserve::load {
namespace {

std::vector<double> OneTo(int n) {
  std::vector<double> values(n);
  std::iota(values.rbegin(), values.rend(), 1);  // descending
  return values;
}

TEST(Percentile, IsAValueThatOccurred) {
  EXPECT_EQ(Percentile({1, 2, 3, 4}, 50), 2);
  EXPECT_EQ(Percentile({1, 2, 3, 4}, 51), 3);
  EXPECT_EQ(Percentile({1, 2, 3, 4}, 100), 4);
  EXPECT_EQ(Percentile({7}, 0.1), 7);
}

TEST(Percentile, OfNothingIsZero) { EXPECT_EQ(Percentile({}, 99), 0); }

TEST(Describe, SortsAndFindsEveryRank) {
  const Distribution d = Describe(OneTo(1000));
  EXPECT_EQ(d.count, 1000);
  EXPECT_EQ(d.mean, 500.5);
  EXPECT_EQ(d.p50, 500);
  EXPECT_EQ(d.p90, 900);
  EXPECT_EQ(d.p95, 950);
  EXPECT_EQ(d.p99, 990);
  EXPECT_EQ(d.p999, 999);
  EXPECT_EQ(d.max, 1000);
}

TEST(MeanWaveRows, CountsEachWaveOnce) {
  // One wave of 4, two of 1: 6 rows in 3 waves.
  EXPECT_DOUBLE_EQ(MeanWaveRows({4, 4, 4, 4, 1, 1}), 2);
  EXPECT_EQ(MeanWaveRows({}), 0);
  EXPECT_EQ(MeanWaveRows({0, 0}), 0);
}

}  // namespace
}  // namespace piserve::load
