// SPDX-License-Identifier: Apache-2.0
#include "model/noise.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>

namespace piserve {
namespace {

constexpr int kRounds = 10;
constexpr std::uint64_t kMultiplier0 = 0xD2511F53;
constexpr std::uint64_t kMultiplier1 = 0xCD9E8D57;
constexpr std::uint32_t kWeyl0 = 0x9E3779B9;
constexpr std::uint32_t kWeyl1 = 0xBB67AE85;

// Two uniform words to two normal numbers.
void BoxMuller(std::uint32_t a, std::uint32_t b, double out[2]) {
  const double u = (a + 1.0) * 0x1p-32;  // (0, 1]: its logarithm is finite
  const double angle_rad = 2.0 * std::numbers::pi * (b * 0x1p-32);
  const double radius = std::sqrt(-2.0 * std::log(u));
  out[0] = radius * std::cos(angle_rad);
  out[1] = radius * std::sin(angle_rad);
}

}  // namespace

std::array<std::uint32_t, 4> Philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key) {
  for (int round = 0; round < kRounds; ++round) {
    const std::uint64_t p0 = kMultiplier0 * counter[0];
    const std::uint64_t p1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(p0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

void FillNoise(std::uint64_t seed, std::span<float> out) {
  const std::array<std::uint32_t, 2> key = {
      static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  for (std::size_t begin = 0; begin < out.size(); begin += 4) {
    const std::uint64_t block = begin / 4;
    const auto words = Philox4x32({static_cast<std::uint32_t>(block),
                                   static_cast<std::uint32_t>(block >> 32)},
                                  key);
    double normal[4];
    BoxMuller(words[0], words[1], normal);
    BoxMuller(words[2], words[3], normal + 2);
    const std::size_t n = std::min<std::size_t>(4, out.size() - begin);
    for (std::size_t i = 0; i < n; ++i) {
      out[begin + i] = static_cast<float>(normal[i]);
    }
  }
}

}  // namespace piserve
