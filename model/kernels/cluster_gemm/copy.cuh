// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/cluster_gemm/tile.cuh"
#include "model/kernels/launch.cuh"

namespace piserve::kernels::cluster_gemm {

// What the thread does that keeps the ring full.
class Copier {
 public:
  __device__ Copier(const Params& p, Shared& shared) : p_(p), shared_(shared) {}

  // Weights are there before the work enqueued earlier has ended, tokens are
  // not.
  __device__ void Run() const {
    const int early = p_.steps < kStages ? p_.steps : kStages;
    for (int k = 0; k < early; ++k) CopyWeights(k, k);
    PrefetchTensorMap(p_.x);
    WaitForPrevious();
    FenceGlobalForCopies();
    for (int k = 0; k < early; ++k) CopyTokens(k, k);
    Place place;
    for (int k = early; k < p_.steps; ++k) {
      BarrierWait(&shared_.empty[place.stage], place.parity);
      CopyWeights(k, place.stage);
      CopyTokens(k, place.stage);
      place.Next();
    }
  }

 private:
  __device__ int Input(int k) const {
    return (tile_.peer * p_.steps + k) * kDepth;
  }
  __device__ void CopyWeights(int k, int stage) const {
    std::uint64_t* full = &shared_.full[stage];
    BarrierArriveExpecting(full, (kOut + kTokens) * kRowBytes);
    CopyBox(p_.w, shared_.stages[stage].w, full, Input(k), tile_.out);
  }
  __device__ void CopyTokens(int k, int stage) const {
    CopyBox(p_.x, shared_.stages[stage].x, &shared_.full[stage], Input(k),
            tile_.token);
  }

  const Params& p_;
  Shared& shared_;
  const Tile tile_;
};

}  // namespace piserve::kernels::cluster_gemm
