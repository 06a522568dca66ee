// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/ring.cuh"
#include "model/kernels/warpgroup_attention/work.cuh"

// What the threads do that fill rings.
namespace piserve::kernels::warpgroup_attention {

__device__ inline void LoadQueries(const Params& p, const Work& w, int query,
                                   char* to, std::uint64_t* full) {
  BarrierArriveExpecting(full, kQBytes);
  CopyBox(p.q, to, full, 0, 0, query / p.args.heads, 0, w.row);
}

// Fetches the tile of keys from `key` on once its place is free. Of several
// peers each fetches a part for all of them.
template <int kPeers, int kSlots>
__device__ void LoadTile(const CUtensorMap& map, int cache_row, int key,
                         char* tile, RingBarriers<kSlots>& ring,
                         RingPlace<kSlots>& place) {
  std::uint64_t* full = &ring.full[place.stage];
  std::uint64_t* empty = &ring.empty[place.stage];
  if constexpr (kPeers == 1) {
    BarrierWait(empty, place.parity ^ 1);
    BarrierArriveExpecting(full, kTileBytes);
    for (int block = 0; block < kBlocks; block += kCopyBlocks) {
      CopyBox(map, tile + block * kBlockBytes, full, 0, key, block, cache_row);
    }
  } else {
    static_assert(kPeers * kCopyBlocks == kBlocks);
    BarrierWaitForCluster(empty, place.parity ^ 1);
    BarrierArriveExpecting(full, kTileBytes);
    const int block = static_cast<int>(blockIdx.x) * kCopyBlocks;
    CopyBoxTo((1 << kPeers) - 1, map, tile + block * kBlockBytes, full, 0, key,
              block, cache_row);
  }
  place.Next();
}

// All of a run but its first tile of k, in a ring's order.
template <typename Load>
__device__ void LoadBehindFirst(const Params& p, int tiles, Load load) {
  for (int tile = 1; tile < tiles; ++tile) {
    load(p.k, tile);
    load(p.v, tile - 1);
  }
  load(p.v, tiles - 1);
}

}  // namespace piserve::kernels::warpgroup_attention
