// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda.h>

#include <cstdint>

#include "model/kernels/mma.cuh"
#include "model/kernels/warpgroup.cuh"

// What a CTA of LaunchVisionAttention has to do, and where it keeps it.
namespace piserve::kernels::vision_attention {

inline constexpr int kTokens = 256;  // of an image
inline constexpr int kDim = 72;
inline constexpr int kColumns = 64;  // of a tile; the others are a piece
inline constexpr int kGroups = 3;
inline constexpr int kThreads = kGroups * kGroup;
inline constexpr int kWarps = kGroup / 32;  // of a warpgroup
inline constexpr int kRows = 64;            // queries of a task
inline constexpr int kTasksPerHead = kTokens / kRows;
inline constexpr int kWarpsPerHead = kTasksPerHead * kWarps;
inline constexpr int kStages = 2;  // heads whose keys and values are there
inline constexpr int kSlots = kStages * kTasksPerHead;  // of queries
inline constexpr int kTokenBytes = kDim * 2;            // in a head
// Whoever has a task of a head's first kGroups has one of each head behind it.
static_assert(kGroups <= kTasksPerHead);

// The third dimension of qkv.
enum Part { kQuery, kKey, kValue };

// One part of a head, of kCount tokens, bf16.
template <int kCount>
struct Head {
  alignas(1024) char tile[kCount * kColumns * 2];
  alignas(128) char piece[kCount * (kDim - kColumns) * 2];
};
using Keys = Head<kTokens>;  // or values
using Queries = Head<kRows>;
static_assert(sizeof(Queries) == kRows * kTokenBytes);  // the result's place

struct Shared {
  Keys keys[kStages], values[kStages];
  Queries queries[kSlots];  // afterwards the task's result, [kRows][kDim]
  // Behind all, as wgmma's descriptors look ahead.
  alignas(128) char zeros[kTokens * 16];
  alignas(128) char ones[16 * 16];
  std::uint64_t keys_full[kStages], values_full[kStages], queries_full[kSlots];
  // How many warps have left a stage; at multiples of kWarpsPerHead it is
  // filled again.
  int keys_left[kStages], values_left[kStages];
};

// [tokens, part, heads, head_dim] of q, k and v in boxes of a head's tile or
// piece, of a task's queries or of an image's keys; [tokens, heads, head_dim]
// of the result in boxes of a task.
struct Maps {
  CUtensorMap query_tile, query_piece, tile, piece, result;
};

// A head of an image, and a token of the call.
struct Place {
  int head, token;
};

// A CTA's tasks: `count` of the call's from `first` on, heads within images and
// tasks within heads. Tasks and heads are counted within the CTA; its first
// head may have begun in another, and its last one end there.
struct Work {
  int first, count;
  int heads;     // of an image
  Place origin;  // of head 0

  __device__ int HeadOf(int task) const {
    return (first + task) / kTasksPerHead - first / kTasksPerHead;
  }
  __device__ int LastHead() const { return HeadOf(count - 1); }
  __device__ int TasksOfFirstHead() const {
    return kTasksPerHead - first % kTasksPerHead;
  }
  // A head's first key.
  __device__ Place KeysOf(int head) const {
    Place place = {origin.head + head, origin.token};
    for (; place.head >= heads; place.head -= heads) place.token += kTokens;
    return place;
  }
  // A task's first query.
  __device__ Place QueriesOf(int task) const {
    Place place = KeysOf(HeadOf(task));
    place.token += (first + task) % kTasksPerHead * kRows;
    return place;
  }
};

// Of `tasks` in all, `chunk` to a CTA.
__device__ inline Work WorkOf(int heads, int tasks, int chunk) {
  const int first = static_cast<int>(blockIdx.x) * chunk;
  const int head = first / kTasksPerHead;
  return {.first = first,
          .count = min(chunk, tasks - first),
          .heads = heads,
          .origin = {head % heads, head / heads * kTokens}};
}

}  // namespace piserve::kernels::vision_attention
