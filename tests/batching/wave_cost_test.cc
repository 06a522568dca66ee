// SPDX-License-Identifier: Apache-2.0
#include "batching/wave_cost.h"

#include <gtest/gtest.h>

#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

using Fake = FakeExecutorTraits<ExecutorTraits>;

Fake WithTable(std::map<int, absl::Duration> table) {
  FakeTraits traits;
  traits.sizes.clear();
  for (const auto& [size, time] : table) traits.sizes.push_back(size);
  traits.table = std::move(table);
  return Fake(traits);
}

TEST(WaveCost, TheSmallestSizeThatHolds) {
  const Fake executor = WithTable({{2, Ms(1)}, {4, Ms(1)}, {8, Ms(1)}});
  EXPECT_EQ(SizeFor(executor, 1), 2);
  EXPECT_EQ(SizeFor(executor, 4), 4);
  EXPECT_EQ(SizeFor(executor, 5), 8);
  EXPECT_EQ(SizeFor(executor, 9), 8);
}

TEST(WaveCost, EfficientIsTheSmallestWithinTheSlackOfTheBest) {
  // 10, 5.25 and 5 ms a row.
  const Fake executor = WithTable({{1, Ms(10)}, {4, Ms(21)}, {8, Ms(40)}});
  EXPECT_EQ(EfficientSize(executor, {}, 0.10), 4);
  EXPECT_EQ(EfficientSize(executor, {}, 0.01), 8);
}

TEST(WaveCost, LargeWavesAreEfficientWhereTheDeviceTakesNoTime) {
  const Fake executor = WithTable({{1, Ms(0)}, {8, Ms(0)}});
  EXPECT_EQ(EfficientSize(executor, {}, 0.10), 8);
}

TEST(WaveCost, AWaveCostsTheMaximaOfItsRows) {
  TaskTraits task;
  task.cameras = 2;
  task.prompt_tokens = 7;
  task.steps = 5;
  const WaveCost cost = Max({4, 3, 1, 0}, CostOf(task));
  EXPECT_EQ(cost.rows, 4);
  EXPECT_EQ(cost.cameras, 3);
  EXPECT_EQ(cost.prompt_tokens, 7);
  EXPECT_EQ(cost.steps, 5);
}

}  // namespace
}  // namespace piserve::batching
