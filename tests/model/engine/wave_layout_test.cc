// SPDX-License-Identifier: Apache-2.0
#include "model/engine/wave_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace piserve::engine {
namespace {

const GraphSizes kSizes = {.batch_sizes = {1, 2, 4, 8, 16, 32, 64},
                           .prompt_tokens = {64, 200}};

TEST(WaveLayoutTest, TakesTheSmallestGraphThatHoldsTheWave) {
  const WaveLayout layout =
      LayOut(kSizes, {.rows = 3, .cameras = 2, .prompt_tokens = 65});
  EXPECT_EQ(layout.rows, 4);
  EXPECT_EQ(layout.prefix,
            (PrefixShape{.rows = 4, .cameras = 2, .prompt_tokens = 200}));
  EXPECT_EQ(layout.micro_waves, 1);
}

TEST(WaveLayoutTest, ComputesNoPrefixForNobody) {
  for (int rows = 33; rows <= 64; ++rows) {
    const WaveLayout layout = LayOut(kSizes, {.rows = rows});
    EXPECT_EQ(layout.rows, 64);
    EXPECT_EQ(layout.prefix.rows, 8);
    EXPECT_GE(layout.prefix_rows(), rows);
    EXPECT_LT(layout.prefix_rows(), rows + 8);
  }
}

TEST(WaveLayoutTest, ARowsGraphDoesNotDependOnItsNeighbours) {
  for (int rows = 9; rows <= 16; ++rows) {
    EXPECT_EQ(LayOut(kSizes, {.rows = rows}).prefix,
              LayOut(kSizes, {.rows = 16}).prefix);
  }
}

TEST(WaveLayoutTest, SharesAnAwkwardSizeEvenly) {
  GraphSizes sizes = {.batch_sizes = {11}, .prompt_tokens = {48}};
  EXPECT_EQ(LayOut(sizes, {.rows = 11}).prefix.rows, 6);
  EXPECT_EQ(LayOut(sizes, {.rows = 11}).micro_waves, 2);
  sizes.micro_rows = 4;
  EXPECT_EQ(LayOut(sizes, {.rows = 11}).prefix.rows, 4);
  EXPECT_EQ(LayOut(sizes, {.rows = 11}).micro_waves, 3);
}

TEST(WaveLayoutTest, AWaveWithoutCamerasRunsInTheSmallestGraph) {
  EXPECT_EQ(LayOut(kSizes, {.rows = 1, .cameras = 0}).prefix.cameras, 1);
}

// The batcher asks what a mean over all policies' rows would take.
TEST(WaveLayoutTest, WhatIsLargerThanEveryGraphTakesTheLargest) {
  const WaveLayout layout =
      LayOut(kSizes, {.rows = 65, .cameras = 4, .prompt_tokens = 201});
  EXPECT_EQ(layout.rows, 64);
  EXPECT_EQ(layout.prefix,
            (PrefixShape{.rows = 8, .cameras = 3, .prompt_tokens = 200}));
  EXPECT_EQ(layout.micro_waves, 8);
}

// Steps are timed, and ways to take them compared, with the layout that comes
// first: on the keys of three cameras and the longest prompt.
TEST(WaveLayoutTest, DistinctLayoutsBeginWithTheLongestPrefix) {
  std::set<int> rows;
  for (const WaveLayout& layout : DistinctLayouts(kSizes)) {
    if (!rows.insert(layout.rows).second) continue;
    EXPECT_EQ(layout.prefix.cameras, 3) << layout.rows;
    EXPECT_EQ(layout.prefix.prompt_tokens, 200) << layout.rows;
  }
  EXPECT_EQ(rows.size(), kSizes.batch_sizes.size());
}

TEST(WaveLayoutTest, EveryWaveHasItsLayoutAmongAll) {
  const std::vector<WaveLayout> all = AllLayouts(kSizes);
  for (int rows = 1; rows <= 64; ++rows) {
    for (int cameras = 0; cameras <= 3; ++cameras) {
      for (const int prompt : {0, 1, 64, 65, 200}) {
        const WaveLayout layout =
            LayOut(kSizes,
                   {.rows = rows, .cameras = cameras, .prompt_tokens = prompt});
        EXPECT_TRUE(std::any_of(all.begin(), all.end(),
                                [&](const auto& other) {
                                  return other.prefix == layout.prefix &&
                                         other.rows == layout.rows &&
                                         other.micro_waves >=
                                             layout.micro_waves;
                                }))
            << rows << " " << cameras << " " << prompt;
      }
    }
  }
}

TEST(PromptSizesTest, AShortPromptHasGraphsOfItsOwnWhereItPays) {
  EXPECT_EQ(PromptSizes(Pi0Variant()), (std::vector<int>{48}));
  EXPECT_EQ(PromptSizes(Pi05Variant()), (std::vector<int>{64, 200}));
}

}  // namespace
}  // namespace piserve::engine
