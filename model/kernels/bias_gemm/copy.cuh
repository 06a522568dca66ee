// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/bias_gemm/tile.cuh"
#include "model/kernels/launch.cuh"

namespace piserve::kernels::bias_gemm {

// What the thread does that fills the ring.
class Copier {
 public:
  __device__ __forceinline__ Copier(const Params& p, Shared& shared)
      : p_(p), shared_(shared) {}

  // The first stages. Weights are there before the work enqueued earlier has
  // ended, all else is not.
  __device__ __forceinline__ void Begin() const {
    for (int k = 0; k < kStages; ++k) CopyWeights(k, k);
    WaitForPrevious();
    FenceGlobalForCopies();
    for (int k = 0; k < kStages; ++k) CopyTokens(k, k);
  }

  // What comes kStages behind the k-th stage, of operands not the last, in its
  // place.
  __device__ __forceinline__ void Refill(int k, const Place& place) const {
    const int next = k + kStages;
    BarrierWaitForCluster(&shared_.empty[place.stage], place.parity);
    if (next < p_.steps) {
      CopyWeights(next, place.stage);
      CopyTokens(next, place.stage);
    } else {
      CopyAddends(next - p_.steps, place.stage);
    }
  }

 private:
  __device__ __forceinline__ void CopyWeights(int k, int stage) const {
    std::uint64_t* full = &shared_.full[stage];
    BarrierArriveExpecting(full, (kTokens + kOut) * kRowBytes);
    CopyShareToAll<kPeers, kOut>(p_.w, shared_.stages[stage].w, full,
                                 k * kDepth, tile_.out);
  }
  __device__ __forceinline__ void CopyTokens(int k, int stage) const {
    CopyBox(p_.x, shared_.stages[stage].x, &shared_.full[stage], k * kDepth,
            tile_.token);
  }
  __device__ __forceinline__ void CopyAddends(int group, int stage) const {
    std::uint64_t* full = &shared_.full[stage];
    BarrierArriveExpecting(full, kBlocks * kBoxBytes);
    for (int b = 0; b < kBlocks; ++b) {
      CopyBox(p_.y, shared_.stages[stage].Bytes() + b * kBoxBytes, full,
              tile_.out + group * kGroupOut, tile_.token + b * kBlockTokens);
    }
  }

  const Params& p_;
  Shared& shared_;
  const Tile tile_;
};

}  // namespace piserve::kernels::bias_gemm
