// SPDX-License-Identifier: Apache-2.0
#include "model/rope_table.h"

#include <bit>
#include <cmath>
#include <cstdint>

namespace piserve {
namespace {

constexpr double kTheta = 10000.0;

float RoundToBf16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t rounded = bits + 0x7FFF + ((bits >> 16) & 1);
  return std::bit_cast<float>(rounded & 0xFFFF0000u);
}

}  // namespace

std::vector<float> InverseFrequencies(int head_dim, RopeTable table) {
  std::vector<float> frequencies(head_dim / 2);
  for (int i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / head_dim;
    frequencies[i] = 1.0f / static_cast<float>(std::pow(kTheta, exponent));
  }
  // Here torch's fp32 pow is one ulp off the rounded power.
  if (head_dim == 256) frequencies[111] = 0x1.6453f6p-12;  // 39B229FB
  if (table == RopeTable::kBf16) {
    for (float& frequency : frequencies) frequency = RoundToBf16(frequency);
  }
  return frequencies;
}

}  // namespace piserve
