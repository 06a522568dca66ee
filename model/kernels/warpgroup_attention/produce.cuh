// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/ring.cuh"
#include "model/kernels/warpgroup_attention/work.cuh"

// The producer warpgroup: one thread keeps the ring of tiles full, ahead into
// the next item, and three warps clean each item's last tile of v.
namespace piserve::kernels::warpgroup_attention {

__device__ inline void LoadQueries(const Params& p, const Work& w, int group,
                                   Shared& shared, int parity) {
  const int query = w.first_query + group * kGroupRows;
  BarrierWait(&shared.empty_q[group], parity ^ 1);
  if (!w.Needs(group)) return BarrierArrive(&shared.full_q[group]);
  BarrierArriveExpecting(&shared.full_q[group], kQBytes);
  CopyBox(p.q, shared.q[group], &shared.full_q[group], 0, 0,
          query / p.args.heads, 0, w.row);
}

// Fetches the tile of keys from `key` on once its place is free. Of several
// peers each fetches a part for all of them.
template <int kPeers>
__device__ void LoadTile(const CUtensorMap& map, const Work& w, int key,
                         Shared& shared, Place& place) {
  char* tile = shared.tiles[place.slot];
  std::uint64_t* full = &shared.full[place.slot];
  std::uint64_t* empty = &shared.empty[place.slot];
  if constexpr (kPeers == 1) {
    BarrierWait(empty, place.parity ^ 1);
    BarrierArriveExpecting(full, kTileBytes);
    for (int block = 0; block < kBlocks; block += kCopyBlocks) {
      CopyBox(map, tile + block * kBlockBytes, full, 0, key, block,
              w.cache_row);
    }
  } else {
    static_assert(kPeers * kCopyBlocks == kBlocks);
    BarrierWaitForCluster(empty, place.parity ^ 1);
    BarrierArriveExpecting(full, kTileBytes);
    const int block = static_cast<int>(blockIdx.x) * kCopyBlocks;
    CopyBoxTo((1 << kPeers) - 1, map, tile + block * kBlockBytes, full, 0, key,
              block, w.cache_row);
  }
  place.Next();
}

template <int kPeers>
__device__ void Produce(const Params& p, Shared& shared) {
  FenceGlobalForCopies();
  Place place;
  int parity = 0;  // of the queries' barriers
  ForEachItem<kPeers>(p, [&](const Work& w) {
    const int tiles = w.Tiles();
    if (!w.Matters() || tiles == 0) return;
    const auto load = [&](const CUtensorMap& map, int tile) {
      LoadTile<kPeers>(map, w, w.begin + tile * kKeys, shared, place);
    };
    // The first warpgroup may begin before the second: apart they stay, one's
    // softmax beside the other's products.
    LoadQueries(p, w, 0, shared, parity);
    load(p.k, 0);
    LoadQueries(p, w, 1, shared, parity);
    for (int tile = 1; tile < tiles; ++tile) {
      load(p.k, tile);
      load(p.v, tile - 1);
    }
    load(p.v, tiles - 1);
    parity ^= 1;
  });
}

// All have cleaned: one that is late must not be taken for what another does in
// the next item.
__device__ inline void SyncCleaners() {
  __syncwarp();
  asm volatile("bar.sync 1, %0;" ::"n"(kCleaners) : "memory");
}

// What the last tile of v holds past the keys may be NaN, which a weight of
// zero does not undo.
template <int kPeers>
__device__ void CleanLastValues(const Params& p, Shared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Place place;
  ForEachItem<kPeers>(p, [&](const Work& w) {
    const int tiles = w.Tiles();
    if (!w.Matters() || tiles == 0) return;
#pragma unroll 1
    for (int i = 0; i < 2 * tiles - 1; ++i) {
      Release<kPeers>(shared, Take(shared, place), lane);
    }
    const int slot = Take(shared, place);
    char* tile = shared.tiles[slot];
    const int keys = w.end - w.begin - (tiles - 1) * kKeys;
#pragma unroll 1
    for (int i = keys * (kDim / 8) + static_cast<int>(threadIdx.x) - 32;
         i < kKeys * (kDim / 8); i += kCleaners) {
      *reinterpret_cast<uint4*>(
          tile + SwizzledOffset(kKeys, i / (kDim / 8), i % (kDim / 8))) = {};
    }
    FenceForWgmma();
    SyncCleaners();
    if (threadIdx.x == 32) BarrierArrive(&shared.clean_last);
    Release<kPeers, Left::kWritten>(shared, slot, lane);
  });
}

}  // namespace piserve::kernels::warpgroup_attention
