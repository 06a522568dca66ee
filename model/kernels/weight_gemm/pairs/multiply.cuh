// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/shared_mma.cuh"
#include "model/kernels/weight_gemm/pairs/tile.cuh"

namespace piserve::kernels::weight_gemm::pairs {

// Of a thread. Element 4 g + r of block b (Shape): of the block weight row 16
// warp + lane / 4 (+ 8 for r >= 2), token 8 g + 2 (lane % 4) + r % 2 of the
// tile.
template <typename S>
using Sums = float[kBlocks][S::kTokens / 2];

// Lets go of a stage that this warp has read, in all CTAs that fill it.
template <typename S>
__device__ __forceinline__ void Release(Ring<S>& ring, int stage) {
  __syncwarp();
  const int lane = Lane();
  if (lane < kPeers) BarrierArriveAfterReads(&ring.empty[stage], lane);
}

// A warpgroup's part of the next tile: the sums over all inputs.
template <typename S>
__device__ __forceinline__ void MultiplyTile(const Product& product,
                                             Ring<S>& ring, int group,
                                             Place<S>& place, Sums<S>& sums) {
  constexpr int kStageBytes = sizeof(typename Ring<S>::Stage);
  const std::uint64_t w = RowsTile(SharedAddress(ring.stages[0].w) +
                                   group * S::kGroupStep * kRowBytes);
  const std::uint64_t x = RowsTile(SharedAddress(ring.stages[0].x));
#pragma unroll 1
  for (int k = 0; k < product.steps; ++k) {
    BarrierWait(&ring.full[place.stage], place.parity);
    const int at = place.stage * (kStageBytes >> 4);
    AskForProducts(sums, w + at, S::kBlockStep, x + at, k > 0);
    if (k > 0) {
      WgmmaWaitAllButLast();
      Release(ring, place.Before().stage);
    }
    place.Next();
  }
  WgmmaWait();
#pragma unroll
  for (auto& block : sums) HoldRegisters(block);
  Release(ring, place.Before().stage);
}

}  // namespace piserve::kernels::weight_gemm::pairs
