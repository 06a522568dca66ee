// SPDX-License-Identifier: Apache-2.0
#include "model/flow.h"

#include <vector>

#include "gtest/gtest.h"

namespace piserve {
namespace {

TEST(FlowStepsTest, AreOpenpisWhileLoop) {
  for (int steps = 1; steps <= 2000; ++steps) {
    const FlowSteps flow = FlowStepsOf(steps);
    std::vector<float> times;
    for (float t = 1.0f; t >= -flow.dt / 2; t += flow.dt) times.push_back(t);
    ASSERT_EQ(flow.times, times) << steps;
  }
}

// In fp32 so small steps add up to one step more or less.
TEST(FlowStepsTest, AreAsManyAsAskedForHoweverSmall) {
  for (const int steps : {8985, 11976, 1 << 20}) {
    EXPECT_EQ(FlowStepsOf(steps).times.size(), steps);
  }
}

}  // namespace
}  // namespace piserve
