// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace piserve {

// Fills `out` with standard normal noise that depends on `seed` and the index
// of the element alone: the same seed gives the same noise anywhere, and a
// longer `out` begins like a shorter one. docs/noise.md defines it and has test
// vectors.
void FillNoise(std::uint64_t seed, std::span<float> out);

// One block of Philox4x32-10. Source: Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", 2011.
std::array<std::uint32_t, 4> Philox4x32(std::array<std::uint32_t, 4> counter,
                                        std::array<std::uint32_t, 2> key);

}  // namespace piserve
