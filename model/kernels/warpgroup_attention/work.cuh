// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"

// What a CTA of LaunchWarpgroupAttention has to do, and where it keeps it.
namespace piserve::kernels::warpgroup_attention {

inline constexpr int kDim = 256;
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = (kConsumers + 1) * kGroup;
inline constexpr int kGroupRows = 64;
inline constexpr int kRows = kConsumers * kGroupRows;
inline constexpr int kCleaners = kGroup - 32;  // threads
inline constexpr int kKeys = 64;               // a tile's
inline constexpr int kSlots = 4;  // tiles of k or v in shared memory
inline constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
// Columns of the queries that stay in registers, a multiple of 16.
inline constexpr int kHeldColumns = 80;

inline constexpr int kBlocks = kDim / 64;              // of columns
inline constexpr int kQBytes = kGroupRows * kDim * 2;  // a warpgroup's
inline constexpr int kOutRows = 16;  // of a box of results, by 64 columns
inline constexpr int kTileBytes = kKeys * kDim * 2;
inline constexpr int kBlockBytes = kTileBytes / kBlocks;
// A copy brings as much of a tile as each of two CTAs fetches for both.
inline constexpr int kCopyBlocks = kBlocks / 2;

// Which launch of a call's: the second may begin while the first one's last
// items are under way, since it knows from it that the work before both has
// ended (begin.cuh).
enum class Turn { kOnly, kFirst, kSecond };

struct Params {
  CUtensorMap q, k, v;
  AttentionArgs args;
  Turn turn = Turn::kOnly;
  float scale = 0;     // of scores, to units of log 2
  int first_tile = 0;  // of each row's queries
  int tiles = 0;       // of those, from there on, that the launch is about
};

// What CTAs with parts of a row's keys tell each other beside their results.
struct RowState {
  float maximum;  // what its scores are taken against
  float sum;      // of weights
  float unit;     // that the partial result is in
};

struct Shared {
  alignas(1024) char q[kConsumers][kQBytes];
  // k and v in the order of use; at the end, a part's results.
  alignas(1024) char tiles[kSlots][kTileBytes];
  // Results on their way out: of each warp a box comes while one goes.
  alignas(1024) char out[kConsumers * kGroup / 32][2][kOutRows * 128];
  RowState state[kRows];
  std::uint64_t full[kSlots], empty[kSlots];
  std::uint64_t full_q[kConsumers], empty_q[kConsumers];
  // An item's last tile of v has zeros where it has no key, and all consumers
  // know so of the item before.
  std::uint64_t clean_last;
};
static_assert(kRows * kDim * 2 <= kSlots * kTileBytes);

// An item of a cluster's, as one of its CTAs sees it.
struct Work {
  int row;            // of the batch
  int first_query;    // of the CTA
  int cluster_query;  // of the cluster
  int queries;        // of the batch row
  int needed;         // of those
  int begin, end;     // keys
  int visible_first;
  int cache_row;
  bool last;  // of the cluster's items

  __device__ int Tiles() const { return (end - begin + kKeys - 1) / kKeys; }
  // Whether one of the cluster's queries matters.
  __device__ bool Matters() const { return cluster_query < needed; }
  // Whether one of the warpgroup's does.
  __device__ bool Needs(int group) const {
    return first_query + group * kGroupRows < needed;
  }
};

// An item is kPeers neighbouring tiles of queries, one for each CTA along
// grid.x; where kPeers is 1, one tile, and CTAs along grid.x have parts of its
// keys.
template <int kPeers>
__device__ int RowItems(const Params& p) {
  return (p.tiles + kPeers - 1) / kPeers;
}

template <int kPeers>
__device__ Work WorkOf(const Params& p, int item) {
  const AttentionArgs& a = p.args;
  const int row_items = RowItems<kPeers>(p);
  const int x = static_cast<int>(blockIdx.x);
  Work w;
  w.row = item / row_items;
  const int tile = p.first_tile + (item - w.row * row_items) * kPeers;
  w.cluster_query = tile * kRows;
  w.first_query = w.cluster_query + (kPeers == 1 ? 0 : x * kRows);
  w.queries = a.tokens * a.heads;
  w.needed = a.query_len == nullptr
                 ? w.queries
                 : min(a.query_len[w.row] * a.heads, w.queries);
  const int start = a.start[w.row];
  const int visible = min(start + a.key_extra, a.cache_len);
  w.visible_first = a.first_token == FirstToken::kSeesItself
                        ? min(start + 1, visible)
                        : visible;
  const int splits = kPeers == 1 ? static_cast<int>(gridDim.x) : 1;
  const int split = kPeers == 1 ? x : 0;
  const int share = (visible + splits * 16 - 1) / (splits * 16) * 16;
  w.begin = min(split * share, visible);
  w.end = min(w.begin + share, visible);
  w.cache_row = w.row + (a.row_base == nullptr ? 0 : *a.row_base);
  w.last = item + static_cast<int>(gridDim.y) >= row_items * a.rows;
  return w;
}

// This cluster's items, one after another: of all, those along grid.y.
template <int kPeers, typename Each>
__device__ void ForEachItem(const Params& p, Each each) {
  const int items = RowItems<kPeers>(p) * p.args.rows;
  const int step = static_cast<int>(gridDim.y);
  for (int item = static_cast<int>(blockIdx.y); item < items; item += step) {
    each(WorkOf<kPeers>(p, item));
  }
}

}  // namespace piserve::kernels::warpgroup_attention
