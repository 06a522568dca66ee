// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/merge.cuh"
#include "model/kernels/warpgroup_attention/produce.cuh"

// Consumers with 64 queries of their own, which take the same tiles. An item is
// kPeers neighbouring tiles of 128 queries, one for each CTA along grid.x, and
// a cluster goes on from item to item, the copies ahead; or, where kPeers is 1,
// one such tile, and CTAs along grid.x have parts of its keys.
namespace piserve::kernels::warpgroup_attention {

inline constexpr int kCleaners = kGroup - 32;  // threads
inline constexpr int kOutRows = 16;  // of a box of results, by 64 columns

struct OwnShared {
  static constexpr int kSlots = 4;
  static constexpr int kSharers = 1;  // consumers with the same queries
  static constexpr int kRows = kConsumers * kGroupRows;

  alignas(1024) char queries[kConsumers][kQBytes];
  // k and v in the order of use; at the end, parts' results.
  alignas(1024) char tiles[kSlots][kTileBytes];
  // Results on their way out: of each warp a box comes while one goes.
  alignas(1024) char out[kConsumers * kGroup / 32][2][kOutRows * 128];
  RowState state[kConsumers][kGroupRows];
  RingBarriers<kSlots> ring;
  std::uint64_t full_q[kConsumers], empty_q[kConsumers];
  // An item's last tile of v has zeros where it has no key, and all consumers
  // know so of the item before.
  std::uint64_t clean_last;

  __device__ char* Queries(int group) { return queries[group]; }
  __device__ char* Tiles(int /*group*/) { return tiles[0]; }
  __device__ RingBarriers<kSlots>& Ring(int /*group*/) { return ring; }
  __device__ char* Partial(int group) { return tiles[group]; }

  __device__ void InitBarriers(int peers) {
    constexpr int kTakers = kThreads / 32 - 1;  // warps: not the producer's
    ring.Init(peers * kTakers);
    for (int group = 0; group < kConsumers; ++group) {
      BarrierInit(&full_q[group], 1);
      BarrierInit(&empty_q[group], kGroupWarps);
    }
    BarrierInit(&clean_last, 1 + kConsumers * kGroupWarps);
    FenceBarrierInit();
  }
};

struct Item : Work {
  int cluster_query;  // of the cluster's first CTA
  bool last;          // of the cluster's items

  // Whether one of the cluster's queries matters.
  __device__ bool Matters() const { return Needs(cluster_query); }
  // A consumer's first query.
  __device__ int QueryOf(int group) const {
    return first_query + group * kGroupRows;
  }
  __device__ Run Keys() const { return {begin, kKeys, end}; }
};

template <int kPeers>
__device__ int RowItems(const Params& p) {
  return (p.tiles + kPeers - 1) / kPeers;
}

template <int kPeers>
__device__ Item ItemAt(const Params& p, int i) {
  const int row_items = RowItems<kPeers>(p);
  const int row = i / row_items;
  const int query =
      p.first_query + (i - row * row_items) * kPeers * OwnShared::kRows;
  const int x = static_cast<int>(blockIdx.x);
  const bool last = i + static_cast<int>(gridDim.y) >= row_items * p.args.rows;
  Item item{WorkOf(p, row, query + (kPeers == 1 ? 0 : x * OwnShared::kRows)),
            query, last};
  if (kPeers == 1) TakePart(item);
  return item;
}

// This cluster's items, one after another: of all, those along grid.y.
template <int kPeers, typename Each>
__device__ void ForEachItem(const Params& p, Each each) {
  const int items = RowItems<kPeers>(p) * p.args.rows;
  const int step = static_cast<int>(gridDim.y);
  for (int i = static_cast<int>(blockIdx.y); i < items; i += step) {
    each(ItemAt<kPeers>(p, i));
  }
}

// One thread keeps the ring of tiles full, ahead into the next item.
template <int kPeers>
__device__ void ProduceItems(const Params& p, OwnShared& shared) {
  FenceGlobalForCopies();
  RingPlace<OwnShared::kSlots> place;
  int parity = 0;  // of the queries' barriers
  ForEachItem<kPeers>(p, [&](const Item& item) {
    const Run keys = item.Keys();
    if (!item.Matters() || keys.Tiles() == 0) return;
    const auto load_queries = [&](int group) {
      std::uint64_t* full = &shared.full_q[group];
      BarrierWait(&shared.empty_q[group], parity ^ 1);
      if (!item.Needs(item.QueryOf(group))) return BarrierArrive(full);
      LoadQueries(p, item, item.QueryOf(group), shared.queries[group], full);
    };
    const auto load = [&](const CUtensorMap& map, int tile) {
      LoadTile<kPeers>(map, item.cache_row, keys.Key(tile),
                       shared.tiles[place.stage], shared.ring, place);
    };
    // The first warpgroup may begin before the second: apart they stay, one's
    // softmax beside the other's products.
    load_queries(0);
    load(p.k, 0);
    load_queries(1);
    LoadBehindFirst(p, keys.Tiles(), load);
    parity ^= 1;
  });
}

// All have cleaned: one that is late must not be taken for what another does in
// the next item.
__device__ inline void SyncCleaners() {
  __syncwarp();
  asm volatile("bar.sync 1, %0;" ::"n"(kCleaners) : "memory");
}

// Three warps beside the one that copies clean each item's last tile of v.
template <int kPeers>
__device__ void CleanLastValues(const Params& p, OwnShared& shared) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  RingPlace<OwnShared::kSlots> place;
  ForEachItem<kPeers>(p, [&](const Item& item) {
    const int tiles = item.Keys().Tiles();
    if (!item.Matters() || tiles == 0) return;
#pragma unroll 1
    for (int i = 0; i < 2 * tiles - 1; ++i) {
      Release<kPeers>(shared.ring, Take(shared.ring, place), lane);
    }
    const int slot = Take(shared.ring, place);
    ClearKeys(shared.tiles[slot], item.Keys().LastKeys(), kKeys,
              static_cast<int>(threadIdx.x) - 32, kCleaners);
    SyncCleaners();
    if (threadIdx.x == 32) BarrierArrive(&shared.clean_last);
    Release<kPeers, Left::kWritten>(shared.ring, slot, lane);
  });
}

// What a consumer knows from item to item.
struct Progress {
  RingPlace<OwnShared::kSlots> place;
  int parity = 1;  // of an item's barriers
};

// The last tile of v, once it has been cleaned.
__device__ inline int TakeLast(OwnShared& shared, Progress& progress) {
  const int slot = Take(shared.ring, progress.place);
  BarrierWait(&shared.clean_last, progress.parity);
  return slot;
}

__device__ inline void FreeQueries(OwnShared& shared, const Consumer& c) {
  __syncwarp();
  if (c.lane == 0) BarrierArrive(&shared.empty_q[c.group]);
}

// The part of a warpgroup none of whose queries matter.
template <int kPeers>
__device__ void Drain(int tiles, OwnShared& shared, Progress& progress,
                      const Consumer& c) {
  FreeQueries(shared, c);
#pragma unroll 1
  for (int i = 0; i < 2 * tiles - 1; ++i) {
    Release<kPeers>(shared.ring, Take(shared.ring, progress.place), c.lane);
  }
  Release<kPeers>(shared.ring, TakeLast(shared, progress), c.lane);
}

// An item that matters.
template <int kPeers>
__device__ void ConsumeItem(const Params& p, const Item& item,
                            OwnShared& shared, Progress& progress,
                            Consumer& c) {
  const Run keys = item.Keys();
  Clear(p, item, item.QueryOf(c.group), c);
  if (keys.Tiles() == 0) return;
  progress.parity ^= 1;
  if (c.lane == 0) BarrierArrive(&shared.clean_last);
  BarrierWait(&shared.full_q[c.group], progress.parity);
  if (!item.Needs(item.QueryOf(c.group))) {
    return Drain<kPeers>(keys.Tiles(), shared, progress, c);
  }
  ConsumeTiles<kPeers>(p, keys, shared, progress.place, c, [&] {
    FreeQueries(shared, c);
    return TakeLast(shared, progress);
  });
}

// A warp's 16 rows leave by boxes of 64 columns, in lines of 128 bytes.
__device__ inline void StoreResult(const Params& p, const Work& w,
                                   OwnShared& shared, const Consumer& c) {
  const float inverse[2] = {c.sum[0] > 0 ? 1 / c.sum[0] : 0,
                            c.sum[1] > 0 ? 1 / c.sum[1] : 0};
  const int first = c.group * kGroupRows + c.row - c.lane / 4;
  const int query = w.first_query + first + c.lane / 8;
  __nv_bfloat16* out = OutputAt(p, w, query) + c.lane % 8 * 8;
#pragma unroll
  for (int column = 0; column < kDim; column += 64) {
    char* box = shared.out[first / kOutRows][column / 64 % 2];
    __syncwarp();
#pragma unroll
    for (int n = 0; n < 8; n += 2) {
      std::uint32_t words[4];
      PackColumns(c, column + n * 8, inverse, PackPair, words);
      StoreMatrix4(box + SwizzledOffset(kOutRows, c.lane % 16, n + c.lane / 16),
                   words);
    }
    __syncwarp();
#pragma unroll
    for (int row = 0; row < kOutRows; row += 4) {
      const uint4 line = *reinterpret_cast<const uint4*>(
          box + SwizzledOffset(kOutRows, row + c.lane / 8, c.lane % 8));
      if (query + row < w.queries) {
        *reinterpret_cast<uint4*>(out + row * kDim + column) = line;
      }
    }
  }
}

template <int kPeers>
__device__ void ConsumeItems(const Params& p, OwnShared& shared) {
  Progress progress;
  Consumer c;
  ForEachItem<kPeers>(p, [&](const Item& item) {
    if (item.Matters()) ConsumeItem<kPeers>(p, item, shared, progress, c);
    // All copies to this CTA have landed, and what it released has arrived
    // before a peer leaves. Here, before this item's stores are on their way.
    if (kPeers > 1 && item.last) ClusterArrive();
    if (item.Matters()) {
      StoreResult(p, item, shared, c);
    } else {
      StoreZeros(p, item, OwnShared::kRows);
    }
  });
  if (kPeers > 1) ClusterWait();
}

// The one item whose keys this cluster's CTAs have parts of.
__device__ inline void ConsumePart(const Params& p, OwnShared& shared) {
  const Item item = ItemAt<1>(p, static_cast<int>(blockIdx.y));
  if (item.Matters()) {
    Progress progress;
    Consumer c;
    ConsumeItem<1>(p, item, shared, progress, c);
    // Both warpgroups are past the last tile before its place is taken.
    SyncConsumers();
    StorePartial(shared, c);
  }
  MergeOrStoreZeros(p, item, shared);
}

}  // namespace piserve::kernels::warpgroup_attention
