// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/recorded.h"

#include <gtest/gtest.h>

#include <limits>
#include <utility>
#include <vector>

namespace piserve::client {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

ActionChunk Chunk(std::vector<float> values) {
  ActionChunk chunk;
  chunk.values = std::move(values);
  return chunk;
}

TEST(LargestDifference, IsThatOfTheActionFurthestOff) {
  EXPECT_EQ(LargestDifference({1, 2, 3}, Chunk({1, 4, 2})), 2);
  EXPECT_EQ(LargestDifference({1, 2}, Chunk({1, 2})), 0);
}

TEST(LargestDifference, OfWhatCannotBeComparedIsInfinite) {
  EXPECT_EQ(LargestDifference({1, 2}, Chunk({1})), kInfinity);
  EXPECT_EQ(LargestDifference({kNan, 2}, Chunk({1, 2})), kInfinity);
  EXPECT_EQ(LargestDifference({1, kNan}, Chunk({1, kNan})), kInfinity);
}

}  // namespace
}  // namespace piserve::client
