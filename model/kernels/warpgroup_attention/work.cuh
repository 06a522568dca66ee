// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

#include "model/kernels/attention.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"
#include "model/kernels/warpgroup_attention/ring.cuh"

// What a CTA of LaunchWarpgroupAttention has to do, and where it keeps it.
namespace piserve::kernels::warpgroup_attention {

inline constexpr int kDim = 256;
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = (kConsumers + 1) * kGroup;
inline constexpr int kGroupRows = 64;
inline constexpr int kCleaners = kGroup - 32;  // threads
inline constexpr int kKeys = 64;               // a tile's
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
  float scale = 0;      // of scores, to units of log 2
  int first_query = 0;  // of each row's
  int tiles = 0;        // of queries, from there on, that the launch is about
};

// What those with parts of a row's keys tell each other beside their results.
struct RowState {
  float maximum;  // what its scores are taken against
  float sum;      // of weights
  float unit;     // that the partial result is in
};

// Of a CTA whose consumers have 64 queries each and take the same tiles.
struct OwnShared {
  static constexpr int kSlots = 4;
  static constexpr int kSharers =
      1;  // consumers of a CTA with the same queries

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
};

// Of a CTA whose consumers have the same 64 queries and take turns at the
// tiles, each with a ring of its own.
struct TurnsShared {
  static constexpr int kSlots = 3;
  static constexpr int kSharers = kConsumers;

  alignas(1024) char queries[kQBytes];
  alignas(1024) char tiles[kConsumers][kSlots][kTileBytes];
  RowState state[kConsumers][kGroupRows];
  RingBarriers<kSlots> rings[kConsumers];
  std::uint64_t full_q;

  __device__ char* Queries(int /*group*/) { return queries; }
  __device__ char* Tiles(int group) { return tiles[group][0]; }
  __device__ RingBarriers<kSlots>& Ring(int group) { return rings[group]; }
  __device__ char* Partial(int group) { return tiles[group][0]; }
};
static_assert(kGroupRows * kDim * 2 <= kTileBytes);

// Queries of a CTA.
template <typename Shared>
inline constexpr int kRowsOf = kConsumers / Shared::kSharers* kGroupRows;

// Queries of a row and keys that they meet, as one CTA sees them.
struct Work {
  int row;          // of the batch
  int first_query;  // of the CTA
  int queries;      // of the batch row
  int needed;       // of those
  int begin, end;   // keys
  int visible_first;
  int cache_row;

  // Whether one of the queries from `query` on matters.
  __device__ bool Needs(int query) const { return query < needed; }
};

// Of all keys that the row's queries see.
__device__ inline Work WorkOf(const Params& p, int row, int first_query) {
  const AttentionArgs& a = p.args;
  Work w;
  w.row = row;
  w.first_query = first_query;
  w.queries = a.tokens * a.heads;
  w.needed = a.query_len == nullptr
                 ? w.queries
                 : min(a.query_len[row] * a.heads, w.queries);
  const int start = a.start[row];
  w.begin = 0;
  w.end = min(start + a.key_extra, a.cache_len);
  w.visible_first =
      a.first_token == FirstToken::kSeesItself ? min(start + 1, w.end) : w.end;
  w.cache_row = row + (a.row_base == nullptr ? 0 : *a.row_base);
  return w;
}

// The part of the keys that a CTA along grid.x has.
__device__ inline void TakePart(Work& w) {
  const int parts = static_cast<int>(gridDim.x);
  const int share = (w.end + parts * 16 - 1) / (parts * 16) * 16;
  w.begin = min(static_cast<int>(blockIdx.x) * share, w.end);
  w.end = min(w.begin + share, w.end);
}

// The tiles of keys that a consumer takes: from `first` on, `step` keys apart.
struct Run {
  int first, step, end;

  __device__ int Tiles() const { return max(end - first + step - 1, 0) / step; }
  __device__ int Key(int tile) const { return first + tile * step; }
  // Keys that the last tile has.
  __device__ int LastKeys() const { return min(end - Key(Tiles() - 1), kKeys); }
};

}  // namespace piserve::kernels::warpgroup_attention
