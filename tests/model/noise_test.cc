// SPDX-License-Identifier: Apache-2.0
#include "model/noise.h"

#include <bit>
#include <cmath>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve {
namespace {

using ::testing::ElementsAre;

TEST(NoiseTest, PhiloxGivesThePublishedBlocks) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}),
              ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

std::vector<std::uint32_t> Bits(std::uint64_t seed) {
  std::vector<float> noise(6);
  FillNoise(seed, noise);
  std::vector<std::uint32_t> bits;
  for (const float x : noise) bits.push_back(std::bit_cast<std::uint32_t>(x));
  return bits;
}

TEST(NoiseTest, SeedGivesTheDocumentedBytes) {
  EXPECT_THAT(Bits(0), ElementsAre(0x3f7dbb33, 0xbf6cb6b0, 0xbf1e1b9f,
                                   0xbef6d1b2, 0xbe1d5357, 0x3e392a6d));
  EXPECT_THAT(Bits(1), ElementsAre(0x3ec2c3e3, 0xbe97b1bc, 0xbe7f370c,
                                   0xbf807dbd, 0x3f207fa8, 0xbf224cc3));
  EXPECT_THAT(Bits(0x0123456789abcdef),
              ElementsAre(0x3de16bed, 0xbf4d97ec, 0xc00e4db4, 0x3e9a0fb4,
                          0xbec317b0, 0x3f4b1beb));
  EXPECT_THAT(Bits(~std::uint64_t{0}),
              ElementsAre(0x3f8c9ec9, 0x3f21de8f, 0x3f255714, 0x3f3ac13d,
                          0xbf174864, 0x40038e29));
}

TEST(NoiseTest, LongerNoiseBeginsLikeShorter) {
  std::vector<float> full(37);
  std::vector<float> part(10);
  FillNoise(7, full);
  FillNoise(7, part);
  full.resize(10);
  EXPECT_EQ(full, part);
}

// Of n samples the mean deviates by 1/sqrt(n) and the variance by sqrt(2/n):
// five deviations of each.
TEST(NoiseTest, IsStandardNormal) {
  std::vector<float> noise(1 << 18);
  FillNoise(3, noise);
  double sum = 0;
  double squares = 0;
  for (const float x : noise) {
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += double{x} * x;
  }
  const double n = static_cast<double>(noise.size());
  EXPECT_NEAR(sum / n, 0, 5 / std::sqrt(n));
  EXPECT_NEAR(squares / n, 1, 5 * std::sqrt(2 / n));
}

}  // namespace
}  // namespace piserve
