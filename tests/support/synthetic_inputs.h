// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

// Inputs that are a pure function of a seed, as the goldens were made from.
// docs/synthetic.md, "Inputs from the same generator".
namespace piserve::test {

// uint8 RGB [height, width, 3].
std::vector<std::uint8_t> SyntheticImage(std::uint64_t seed, int height,
                                         int width);

// float32 [count], row-major over [H, action_dim]; variance 1, bounded.
std::vector<float> SyntheticNoise(std::uint64_t seed, int count);

// float64 [count] in [-1, 1).
std::vector<double> SyntheticState(std::uint64_t seed, int count);

// `count` prompt tokens; the first one is bos (2).
std::vector<std::int32_t> SyntheticTokens(std::uint64_t seed, int count,
                                          int vocab);

// FNV-1a 64 over bytes, as the goldens' checksums.
std::uint64_t Fnv1a64(std::string_view bytes);

// The same over pixels, as lower-case hex of 16 digits.
std::string Fnv1a64Hex(const std::vector<std::uint8_t>& bytes);

}  // namespace piserve::test
