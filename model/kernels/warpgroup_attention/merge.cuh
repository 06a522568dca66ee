// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>
#include <cuda_fp16.h>

#include "model/kernels/launch.cuh"
#include "model/kernels/warpgroup_attention/finish.cuh"

// The results of parts of the keys, brought together through distributed shared
// memory.
namespace piserve::kernels::warpgroup_attention {

// What those with parts of a row's keys tell each other beside their results.
struct RowState {
  float maximum;  // what its scores are taken against
  float sum;      // of weights
  float unit;     // that the partial result is in
};

__device__ inline std::uint32_t PackHalves(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

// Partial results travel in FP16: half the bytes of FP32, of which other CTAs'
// shared memory gives 19 a cycle. Their unit is a power of two by which a row's
// largest stays below 2^15, so that what is not 2^28 times smaller loses an
// eighth of what bf16 does. (Beside an infinite one the others are zeros.)
__device__ inline float UnitOf(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);
  return __uint_as_float(static_cast<unsigned>(max(exponent - 14, 1)) << 23);
}

static_assert(kGroupRows * kDim * 2 <= kTileBytes);  // where it lies

// Eight columns of a row of a consumer's partial result.
template <typename Shared>
__device__ char* PartialAt(Shared& shared, int group, int row, int piece) {
  return shared.Partial(group) + SwizzledOffset(kGroupRows, row, piece);
}

template <typename Shared>
__device__ void StorePartial(Shared& shared, const Consumer& c) {
  const int first = c.row - c.lane / 4;
  float factor[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = 0;
#pragma unroll
    for (int i = 0; i < 128; i += 4) {
      largest = fmaxf(largest, fabsf(c.out[i + 2 * r]));
      largest = fmaxf(largest, fabsf(c.out[i + 2 * r + 1]));
    }
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
    const float unit = UnitOf(largest);
    factor[r] =
        __uint_as_float((254u << 23) - __float_as_uint(unit));  // 1 / it
    if (c.lane % 4 != 0) continue;
    shared.state[c.group][c.row + 8 * r] = {c.maximum[r], c.sum[r], unit};
  }
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kDim / 8; n += 2) {
    std::uint32_t words[4];
    PackColumns(c, n * 8, factor, PackHalves, words);
    StoreMatrix4(
        PartialAt(shared, c.group, first + c.lane % 16, n + c.lane / 16),
        words);
  }
}

// A row of up to kMost parts, of each CTA of the cluster those of all consumers
// that share it, in rank order, merged by kRowLanes threads: kPieces times 8
// columns of every part at once, for loads from other CTAs take long. Not one
// code for each number of parts: that of both launches of a call shall fit the
// instruction cache.
inline constexpr int kRowLanes = 8;
inline constexpr int kMostParts = 8;

template <int kMost, int kPieces, typename Shared>
__device__ void MergeRow(Shared& shared, int parts, int row, int lane,
                         __nv_bfloat16* out) {
  constexpr int kSharers = Shared::kSharers;
  auto cluster = cooperative_groups::this_cluster();
  const auto group_of = [row](int part) {
    return kSharers > 1 ? part % kSharers : row / kGroupRows;
  };
  RowState state[kMost];
  float maximum = -INFINITY, total = 0;
#pragma unroll
  for (int s = 0; s < kMost; ++s) {
    state[s] = {-INFINITY, 0, 0};
    if (s < parts) {
      state[s] = *cluster.map_shared_rank(
          &shared.state[group_of(s)][row % kGroupRows], s / kSharers);
    }
  }
#pragma unroll
  for (const RowState& s : state) maximum = fmaxf(maximum, s.maximum);
  float factor[kMost];
#pragma unroll
  for (int s = 0; s < kMost; ++s) {
    const float weight =
        state[s].maximum == -INFINITY ? 0 : Exp2(state[s].maximum - maximum);
    total += weight * state[s].sum;
    factor[s] = weight * state[s].unit;
  }
  const float inverse = total > 0 ? 1 / total : 0;
#pragma unroll 1
  for (int piece = lane; piece < kDim / 8; piece += kPieces * kRowLanes) {
    uint4 value[kMost][kPieces];
#pragma unroll
    for (int s = 0; s < kMost; ++s) {
      if (s >= parts) break;
#pragma unroll
      for (int i = 0; i < kPieces; ++i) {
        value[s][i] = *reinterpret_cast<const uint4*>(cluster.map_shared_rank(
            PartialAt(shared, group_of(s), row % kGroupRows,
                      piece + i * kRowLanes),
            s / kSharers));
      }
    }
    float sum[kPieces][8] = {};
#pragma unroll
    for (int s = 0; s < kMost; ++s) {
      if (s >= parts) break;
#pragma unroll
      for (int k = 0; k < kPieces * 4; ++k) {
        const float2 v =
            __half22float2(reinterpret_cast<const __half2*>(value[s])[k]);
        sum[k / 4][k % 4 * 2] += factor[s] * v.x;
        sum[k / 4][k % 4 * 2 + 1] += factor[s] * v.y;
      }
    }
#pragma unroll
    for (int i = 0; i < kPieces; ++i) {
      *reinterpret_cast<uint4*>(out + (piece + i * kRowLanes) * 8) = {
          PackPair(sum[i][0] * inverse, sum[i][1] * inverse),
          PackPair(sum[i][2] * inverse, sum[i][3] * inverse),
          PackPair(sum[i][4] * inverse, sum[i][5] * inverse),
          PackPair(sum[i][6] * inverse, sum[i][7] * inverse)};
    }
  }
}

// This CTA's share of the rows.
template <typename Shared>
__device__ void Merge(const Params& p, const Work& w, Shared& shared) {
  constexpr int kRows = Shared::kRows;
  constexpr int kFew = Shared::kSharers == 1 ? 3 : 4;
  constexpr int kStep = kConsumers * kGroup / kRowLanes;
  const int ctas = static_cast<int>(gridDim.x);
  const int parts = ctas * Shared::kSharers;
  const int share = (kRows + ctas - 1) / ctas;
  const int first = static_cast<int>(blockIdx.x) * share;
  const int end = min(first + share, min(kRows, w.queries - w.first_query));
  const int thread = static_cast<int>(threadIdx.x) - kGroup;
  const int lane = thread % kRowLanes;
#pragma unroll 1
  for (int row = first + thread / kRowLanes; row < end; row += kStep) {
    __nv_bfloat16* out = OutputAt(p, w, w.first_query + row);
    if (parts <= kFew) {
      MergeRow<kFew, 4>(shared, parts, row, lane, out);
    } else {
      MergeRow<kMostParts, 2>(shared, parts, row, lane, out);
    }
  }
}

__device__ inline void SyncConsumers() {
  asm volatile("bar.sync 3, %0;" ::"n"(kConsumers * kGroup) : "memory");
}

// Once all partial results are there. A CTA alone is no cluster.
template <typename Shared>
__device__ void MergeOrStoreZeros(const Params& p, const Work& w,
                                  Shared& shared) {
  const bool matters = w.Needs(w.first_query);
  if (!matters && blockIdx.x == 0) StoreZeros(p, w, Shared::kRows);
  if (gridDim.x > 1) {
    ClusterSync();
  } else {
    SyncConsumers();
  }
  if (matters) Merge(p, w, shared);
  if (gridDim.x > 1) ClusterLeave();
}

// What the threads do meanwhile that do not consume.
__device__ inline void SitMergeOut() {
  if (gridDim.x == 1) return;
  ClusterSync();
  ClusterLeave();
}

}  // namespace piserve::kernels::warpgroup_attention
