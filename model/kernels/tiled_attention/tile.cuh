// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/attention.h"
#include "model/kernels/mma.cuh"

// What a CTA of LaunchTiledAttention keeps in shared memory, and how it gets
// there.
namespace piserve::kernels::tiled_attention {

inline constexpr int kThreads = 256;
inline constexpr int kWarps = kThreads / 32;
inline constexpr int kTileKeys = 64;
inline constexpr int kStages = 2;
inline constexpr int kMaxSplits = 8;  // the largest portable cluster

template <int kDim, int kM>
struct Layout {
  static constexpr int kPitch = kDim + 8;  // conflict-free ldmatrix
  static constexpr int kPitchP = kTileKeys + 8;
  static constexpr int kRowTiles = kM / 16;
  static constexpr int kKeyWarps = kWarps / kRowTiles;
  static constexpr int kWarpKeys = kTileKeys / kKeyWarps;
  static constexpr int kWarpDim = kDim / kWarps < 16 ? 16 : kDim / kWarps;
  static constexpr int kStageElements = kTileKeys * kPitch;

  // Byte offsets.
  static constexpr int kQ = 0;
  static constexpr int kK = kQ + kM * kPitch * 2;
  static constexpr int kV = kK + kStages * kStageElements * 2;
  static constexpr int kP = kV + kStages * kStageElements * 2;
  static constexpr int kReduce = kP + kM * kPitchP * 2;
  static constexpr int kAlpha = kReduce + kM * kKeyWarps * 4;
  static constexpr int kState = kAlpha + kM * 4;  // float2 (maximum, sum)
  static constexpr int kBytes = kState + kM * 8;
  // The partial result takes the place of the k tiles.
  static constexpr int kPitchO = kDim + 8;
  static_assert(kM * kPitchO * 4 <= 2 * kStages * kStageElements * 2);
};

// Which keys this CTA sums over, and where its rows' visible keys end.
struct KeyRange {
  int begin;
  int end;
  int visible;        // to every token but, it may be, the first
  int visible_first;  // to the first token
};

__device__ inline KeyRange RangeOf(const SuffixAttentionArgs& a, int row,
                                   int split, int splits) {
  const int start = a.start[row];
  KeyRange range;
  range.visible = min(start + a.key_extra, a.cache_len);
  range.visible_first = a.first_token == FirstToken::kSeesItself
                            ? min(start + 1, range.visible)
                            : range.visible;
  const int share = (range.visible + splits * 16 - 1) / (splits * 16) * 16;
  range.begin = min(split * share, range.visible);
  range.end = min(range.begin + share, range.visible);
  return range;
}

// Starts the copy of one tile of keys; rows past the range become zeros.
template <int kDim>
__device__ void FetchTile(const __nv_bfloat16* cache, int first, int end,
                          __nv_bfloat16* tile) {
  constexpr int kRuns = kDim / 8;
  if (first >= end) return;
#pragma unroll
  for (int i = threadIdx.x; i < kTileKeys * kRuns; i += kThreads) {
    const int key = i / kRuns;
    const int column = i % kRuns * 8;
    const bool valid = first + key < end;
    const long at = valid ? first + key : first;
    CopyAsync16(tile + key * (kDim + 8) + column, cache + at * kDim + column,
                valid);
  }
}

template <int kDim, int kM>
__device__ void FetchQueries(const SuffixAttentionArgs& a, int row, int first,
                             __nv_bfloat16* tile) {
  constexpr int kRuns = kDim / 8;
  const int queries = a.tokens * a.heads;
  const __nv_bfloat16* q =
      a.q + static_cast<long>(row) * a.tokens * a.token_stride;
#pragma unroll
  for (int i = threadIdx.x; i < kM * kRuns; i += kThreads) {
    const int query = first + i / kRuns;
    const int column = i % kRuns * 8;
    const bool valid = query < queries;
    const int token = valid ? query / a.heads : 0;
    const int head = valid ? query % a.heads : 0;
    CopyAsync16(tile + i / kRuns * (kDim + 8) + column,
                q + token * a.token_stride + head * kDim + column, valid);
  }
}

}  // namespace piserve::kernels::tiled_attention
