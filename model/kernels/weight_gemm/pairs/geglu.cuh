// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/mma.cuh"
#include "model/kernels/weight_gemm/gated.cuh"
#include "model/kernels/weight_gemm/pairs/multiply.cuh"

namespace piserve::kernels::weight_gemm::pairs {

// Rows as GegluGateRow (geglu_gemm.h) packs them for it: a thread's sums hold
// the gate and the up of two outputs of each block and token pair.
template <int kTokens>
using GegluShape = Shape<kTokens, Pairs::kOfTokens, /*kStages=*/4,
                         /*kGroupStep=*/64, /*kBlockStep=*/128>;

struct GatedOutput {
  __nv_bfloat16* y = nullptr;  // [tokens, out]
  int tokens = 0;
  int out = 0;
};

// A warpgroup's part of a tile: of a token four outputs to a lane. Behind
// branches in pieces: ptxas would else have no registers for it, and begin it
// before the last stage is let go.
template <int kTokens>
__device__ __forceinline__ void StoreGated(
    const GatedOutput& o, const Tile& tile,
    const Sums<GegluShape<kTokens>>& sums) {
  constexpr int kPiece = 64;  // tokens
  const int thread = ThreadOfCta() - kGroup;
  const int lane = thread % 32, warp = thread / 32;
  const int token = tile.token + lane / 4;
  __nv_bfloat16* to = o.y + std::int64_t{token} * o.out + tile.row / 2 +
                      warp * 16 + lane % 4 * 4;
#pragma unroll
  for (int t = 0; t < kTokens; t += 8) {
    if (t % kPiece == 0 && tile.token + t >= o.tokens) break;
    const uint2 outputs = {TransposeMatrix(GatedPair(sums[0], t / 2)),
                           TransposeMatrix(GatedPair(sums[1], t / 2))};
    if (token + t < o.tokens) *reinterpret_cast<uint2*>(to) = outputs;
    to += 8 * o.out;
  }
}

}  // namespace piserve::kernels::weight_gemm::pairs
