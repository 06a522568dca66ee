// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/launch.cuh"
#include "model/kernels/weight_gemm/pairs/tile.cuh"

namespace piserve::kernels::weight_gemm::pairs {

// The thread that keeps the ring full. Weights are there before the work
// enqueued earlier has ended, all else is not.
template <typename S>
class Producer {
 public:
  __device__ Producer(const Product& product, Ring<S>& ring)
      : product_(product), ring_(ring) {}

  __device__ void Run() {
    Run(0, [](const Tile&, int, char*, std::uint64_t*) {});
  }
  // Behind a tile's operands come `extra` stages: fetch(tile, i, stage, full)
  // announces what the i-th takes on `full`, and copies it to `stage`.
  template <typename Fetch>
  __device__ void Run(int extra, Fetch&& fetch) {
    bool waited = false;
    ForEachTile<S>(product_, [&](const Tile& tile) {
      int k = 0;
      if (!waited) {
        k = Begin(tile);
        waited = true;
      }
      for (; k < product_.steps; ++k) {
        const int stage = AwaitEmpty();
        CopyWeights(tile, k, stage);
        CopyTokens(tile, k, stage);
      }
      for (int i = 0; i < extra; ++i) {
        const int stage = AwaitEmpty();
        fetch(tile, i, ring_.stages[stage].Bytes(), &ring_.full[stage]);
      }
    });
    // All that is counted here has come, so that the peer may leave.
    for (int i = 0; i < S::kStages; ++i) AwaitEmpty();
  }

 private:
  // The first stages of the first tile; how many.
  __device__ int Begin(const Tile& tile) {
    const int early = product_.steps < S::kStages ? product_.steps : S::kStages;
    for (int k = 0; k < early; ++k) CopyWeights(tile, k, AwaitEmpty());
    WaitForPrevious();
    FenceGlobalForCopies();
    for (int k = 0; k < early; ++k) CopyTokens(tile, k, k);
    return early;
  }
  // The next stage, once all who read it in both CTAs are done.
  __device__ int AwaitEmpty() {
    BarrierWaitForCluster(&ring_.empty[place_.stage], place_.parity ^ 1);
    const int stage = place_.stage;
    place_.Next();
    return stage;
  }
  __device__ void CopyWeights(const Tile& tile, int k, int stage) {
    std::uint64_t* full = &ring_.full[stage];
    BarrierArriveExpecting(full, (kRows + S::kTokens) * kRowBytes);
    Copy<kRows, S::kPairs == Pairs::kOfTokens>(product_.w, tile.row, k,
                                               ring_.stages[stage].w, full);
  }
  __device__ void CopyTokens(const Tile& tile, int k, int stage) {
    Copy<S::kTokens, S::kPairs == Pairs::kOfWeights>(
        product_.x, tile.token, k, ring_.stages[stage].x, &ring_.full[stage]);
  }
  // All rows, or this CTA's half to both.
  template <int kCount, bool kShared>
  __device__ void Copy(const CUtensorMap& map, int row, int k, char* to,
                       std::uint64_t* full) {
    if constexpr (kShared) {
      CopyShareToAll<kPeers, kCount>(map, to, full, k * kDepth, row);
    } else {
      CopyBox(map, to, full, k * kDepth, row);
    }
  }

  const Product& product_;
  Ring<S>& ring_;
  Place<S> place_;
};

}  // namespace piserve::kernels::weight_gemm::pairs
