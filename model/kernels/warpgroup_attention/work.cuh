// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include "model/kernels/attention.h"
#include "model/kernels/warpgroup.cuh"

// What a CTA of LaunchWarpgroupAttention has to do.
namespace piserve::kernels::warpgroup_attention {

inline constexpr int kDim = 256;
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = (kConsumers + 1) * kGroup;
inline constexpr int kGroupWarps = kGroup / 32;
inline constexpr int kGroupRows = 64;  // queries of a consumer
inline constexpr int kKeys = 64;       // a tile's
inline constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
// Columns of the queries that stay in registers, a multiple of 16.
inline constexpr int kHeldColumns = 80;

inline constexpr int kBlocks = kDim / 64;              // of columns
inline constexpr int kQBytes = kGroupRows * kDim * 2;  // a warpgroup's
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
