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
inline constexpr int kGroup = 128;    // threads of a warpgroup
inline constexpr int kConsumers = 2;  // warpgroups
inline constexpr int kThreads = (kConsumers + 1) * kGroup;
inline constexpr int kGroupRows = 64;
inline constexpr int kRows = kConsumers * kGroupRows;
inline constexpr int kKeys = 64;  // a tile's
inline constexpr int kSlots = 5;  // tiles of k or v in shared memory
inline constexpr int kConsumerRegisters = 232, kProducerRegisters = 40;
// Columns of the queries that stay in registers, a multiple of 16.
inline constexpr int kHeldColumns = 64;
// Whether the warpgroups take turns at issuing their products.
inline constexpr bool kTakeTurns = false;

inline constexpr int kBlocks = kDim / 64;              // of columns
inline constexpr int kQBytes = kGroupRows * kDim * 2;  // a warpgroup's
inline constexpr int kTileBytes = kKeys * kDim * 2;
inline constexpr int kBlockBytes = kTileBytes / kBlocks;
// A copy brings as much of a tile as each of two CTAs fetches for both.
inline constexpr int kCopyBlocks = kBlocks / 2;

struct Params {
  CUtensorMap q, k, v;
  AttentionArgs args;
  float scale = 0;     // of scores, to units of log 2
  int first_tile = 0;  // of queries
};

struct Shared {
  alignas(1024) char q[kConsumers][kQBytes];  // results pass through it
  // k and v in the order of use; at the end, a split's partial results.
  alignas(1024) char tiles[kSlots][kTileBytes];
  float2 state[kRows];  // (maximum, sum)
  std::uint64_t full[kSlots], empty[kSlots];
  std::uint64_t full_q[kConsumers];
  // The last tile of v: it has landed; its rows without a key are zeros.
  std::uint64_t full_last, clean_last;
};
static_assert(kRows * kDim * 4 <= kSlots * kTileBytes);
inline constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and alignment
static_assert(kSharedBytes <= 232448);

// A place in the ring of tiles. Producer and consumers count alike: k0, k1, v0,
// k2, v1, ..., the last v.
struct Place {
  int slot = 0;
  int parity = 0;

  __device__ void Next() {
    if (++slot < kSlots) return;
    slot = 0;
    parity ^= 1;
  }
};

struct Work {
  int row;          // of the batch
  int first_query;  // of the CTA
  int queries;      // of the batch row
  int needed;       // of those
  int begin, end;   // keys
  int visible_first;
  int cache_row;

  __device__ int Tiles() const { return (end - begin + kKeys - 1) / kKeys; }
  // Whether one of the warpgroup's queries matters.
  __device__ bool Needs(int group) const {
    return first_query + group * kGroupRows < needed;
  }
};

// kPeers CTAs along grid.x take neighbouring tiles of queries; where that is
// 1, the CTAs along grid.x take parts of the keys.
template <int kPeers>
__device__ int FirstQuery(const Params& p, int x) {
  const int y = static_cast<int>(blockIdx.y);
  return (p.first_tile + (kPeers == 1 ? y : y * kPeers + x)) * kRows;
}

template <int kPeers>
__device__ Work WorkOf(const Params& p) {
  const AttentionArgs& a = p.args;
  Work w;
  w.row = blockIdx.z;
  w.first_query = FirstQuery<kPeers>(p, static_cast<int>(blockIdx.x));
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
  const int split = kPeers == 1 ? static_cast<int>(blockIdx.x) : 0;
  const int share = (visible + splits * 16 - 1) / (splits * 16) * 16;
  w.begin = min(split * share, visible);
  w.end = min(w.begin + share, visible);
  w.cache_row = w.row + (a.row_base == nullptr ? 0 : *a.row_base);
  return w;
}

}  // namespace piserve::kernels::warpgroup_attention
