// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

// The largest tile whose sums fit two warpgroups' registers, for many tokens.
namespace piserve::kernels::weight_gemm {

inline constexpr int kLargeTileRows = 256, kLargeTileTokens = 208;

// Whether `out` weight rows by `tokens` tokens make more than one wave of large
// tiles, and waves that leave few multiprocessors idle.
constexpr bool FillsLargeTiles(int tokens, int out) {
  constexpr double kLeastFill = 0.9;  // of the waves' tiles
  const int waves =
      Waves(out, tokens, kLargeTileRows, kLargeTileTokens, kTargetProcessors);
  const double places =
      1.0 * waves * kTargetProcessors * kLargeTileTokens * kLargeTileRows;
  return waves > 1 && 1.0 * tokens * out >= kLeastFill * places;
}

}  // namespace piserve::kernels::weight_gemm
