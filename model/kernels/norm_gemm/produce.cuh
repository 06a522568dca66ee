// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/launch.cuh"
#include "model/kernels/norm_gemm/tile.cuh"
#include "model/kernels/ring_place.cuh"

// One thread keeps the ring full. Weights are there before the work enqueued
// earlier has ended, tokens are not.
namespace piserve::kernels::norm_gemm {

template <int kOut>
class Producer {
 public:
  __device__ Producer(const Params& p, Shared<kOut>& shared)
      : p_(p), shared_(shared), tile_(p, kOut) {}

  __device__ void Run() {
    const int steps = p_.args.in / kDepth;
    const int early = steps < kStages ? steps : kStages;
    for (int k = 0; k < early; ++k) CopyWeights(k, k);
    WaitForPrevious();
    FenceGlobalForCopies();
    for (int k = 0; k < early; ++k) CopyTokens(k, k);
    RingPlace<kStages> place;
    for (int k = early; k < steps; ++k, place.Next()) {
      BarrierWaitForCluster(&shared_.empty[place.stage], place.parity);
      CopyWeights(k, place.stage);
      CopyTokens(k, place.stage);
    }
  }

 private:
  static constexpr int kStages = Shared<kOut>::kStages;

  __device__ void CopyWeights(int k, int stage) {
    std::uint64_t* full = &shared_.full[stage];
    BarrierArriveExpecting(full, Shared<kOut>::kStageBytes);
    CopyShareToAll<kPeers, kOut>(p_.w, shared_.stages[stage].w, full,
                                 k * kDepth, tile_.output);
  }
  __device__ void CopyTokens(int k, int stage) {
    CopyBox(p_.x, shared_.stages[stage].x, &shared_.full[stage], k * kDepth,
            tile_.token);
  }

  const Params& p_;
  Shared<kOut>& shared_;
  const Tile tile_;
};

}  // namespace piserve::kernels::norm_gemm
