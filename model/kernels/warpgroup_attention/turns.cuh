// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/merge.cuh"
#include "model/kernels/warpgroup_attention/produce.cuh"

// Consumers with the same 64 queries, which are a cluster's: its CTAs along
// grid.x have parts of their keys, and of a part's tiles the consumers take
// every other one.
namespace piserve::kernels::warpgroup_attention {

struct TurnsShared {
  static constexpr int kSlots = 3;
  static constexpr int kSharers = kConsumers;
  static constexpr int kRows = kGroupRows;

  alignas(1024) char queries[kQBytes];
  // Of each consumer, in the order of use; at the end, parts' results.
  alignas(1024) char tiles[kConsumers][kSlots][kTileBytes];
  RowState state[kConsumers][kGroupRows];
  RingBarriers<kSlots> rings[kConsumers];
  std::uint64_t full_q;

  __device__ char* Queries(int /*group*/) { return queries; }
  __device__ char* Tiles(int group) { return tiles[group][0]; }
  __device__ RingBarriers<kSlots>& Ring(int group) { return rings[group]; }
  __device__ char* Partial(int group) { return tiles[group][0]; }

  __device__ void InitBarriers() {
    for (auto& ring : rings) ring.Init(kGroupWarps);
    BarrierInit(&full_q, 1);
    FenceBarrierInit();
  }
};

// This CTA's.
__device__ inline Work PartOf(const Params& p) {
  const int item = static_cast<int>(blockIdx.y);
  const int row = item / p.tiles;
  const int tile = item - row * p.tiles;
  Work w = WorkOf(p, row, p.first_query + tile * TurnsShared::kRows);
  TakePart(w);
  return w;
}

__device__ inline Run TurnsOf(const Work& w, int group) {
  return {w.begin + group * kKeys, kConsumers * kKeys, w.end};
}

// One thread for each consumer's ring.
__device__ inline void ProduceTurns(const Params& p, const Work& w, int group,
                                    TurnsShared& shared) {
  const Run keys = TurnsOf(w, group);
  if (keys.Tiles() == 0) return;
  FenceGlobalForCopies();
  if (group == 0) {
    LoadQueries(p, w, w.first_query, shared.queries, &shared.full_q);
  }
  RingPlace<TurnsShared::kSlots> place;
  const auto load = [&](const CUtensorMap& map, int tile) {
    LoadTile<1>(map, w.cache_row, keys.Key(tile),
                shared.tiles[group][place.stage], shared.rings[group], place);
  };
  load(p.k, 0);
  LoadBehindFirst(p, keys.Tiles(), load);
}

// A consumer's last tile of v, as far as it is asked for: 16 keys at a time.
__device__ inline void CleanValues(char* tile, int keys, int group) {
  if (keys % 16 == 0) return;
  ClearKeys(tile, keys, (keys + 15) / 16 * 16,
            static_cast<int>(threadIdx.x) % kGroup, kGroup);
  SyncGroup(group);
}

__device__ inline void ConsumeTurns(const Params& p, const Work& w,
                                    TurnsShared& shared) {
  Consumer c;
  const Run keys = TurnsOf(w, c.group);
  Clear(p, w, w.first_query, c);
  if (keys.Tiles() > 0) {
    RingPlace<TurnsShared::kSlots> place;
    BarrierWait(&shared.full_q, 0);
    ConsumeTiles<1>(p, keys, shared, place, c, [&] {
      const int slot = Take(shared.rings[c.group], place);
      CleanValues(shared.tiles[c.group][slot], keys.LastKeys(), c.group);
      return slot;
    });
    SyncGroup(c.group);  // all are past the tile whose place is taken
  }
  StorePartial(shared, c);
}

}  // namespace piserve::kernels::warpgroup_attention
