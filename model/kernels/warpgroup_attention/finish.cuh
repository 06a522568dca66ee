// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>
#include <cuda_fp16.h>

#include "model/kernels/warpgroup_attention/consume.cuh"

// From a consumer's sums to the result: at once, or by way of the cluster's
// merge where the keys were split.
namespace piserve::kernels::warpgroup_attention {

__device__ inline __nv_bfloat16* OutputAt(const Params& p, const Work& w,
                                          int query) {
  return p.args.out + (static_cast<long>(w.row) * w.queries + query) * kDim;
}

// Of a thread's two rows the pairs in 16 columns from `column` on, times the
// rows' factors, as stmatrix stores them.
template <typename Pack>
__device__ void PackColumns(const Consumer& c, int column,
                            const float (&factor)[2], Pack pack,
                            std::uint32_t (&words)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* v = c.out + column / 2 + i * 2;
    words[i] = pack(v[0] * factor[i % 2], v[1] * factor[i % 2]);
  }
}

__device__ inline std::uint32_t PackHalves(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

// A warp's 16 rows leave by boxes of 64 columns, in lines of 128 bytes.
__device__ inline void StoreResult(const Params& p, const Work& w,
                                   Shared& shared, const Consumer& c) {
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

// Partial results travel in FP16: half the bytes of FP32, of which other CTAs'
// shared memory gives 19 a cycle. Their unit is a power of two by which a row's
// largest stays below 2^15, so that what is not 2^28 times smaller loses an
// eighth of what bf16 does. (Beside an infinite one the others are zeros.)
__device__ inline float UnitOf(float largest) {
  const int exponent = static_cast<int>(__float_as_uint(largest) >> 23);
  return __uint_as_float(static_cast<unsigned>(max(exponent - 14, 1)) << 23);
}

// Eight columns of a row of a partial result.
__device__ inline char* PartialAt(Shared& shared, int row, int piece) {
  return shared.tiles[0] + SwizzledOffset(kRows, row, piece);
}

__device__ inline void StorePartial(Shared& shared, const Consumer& c) {
  const int first = c.group * kGroupRows + c.row - c.lane / 4;
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
    shared.state[first + c.lane / 4 + 8 * r] = {c.maximum[r], c.sum[r], unit};
  }
  __syncwarp();
#pragma unroll
  for (int n = 0; n < kDim / 8; n += 2) {
    std::uint32_t words[4];
    PackColumns(c, n * 8, factor, PackHalves, words);
    StoreMatrix4(PartialAt(shared, first + c.lane % 16, n + c.lane / 16),
                 words);
  }
}

// A row of up to kMost parts of the cluster, merged in rank order by kRowLanes
// threads: kPieces times 8 columns of every part at once, for loads from other
// CTAs take long. Not one code for each number of parts: that of both launches
// of a call shall fit the instruction cache.
inline constexpr int kRowLanes = 8;

template <int kMost, int kPieces>
__device__ void MergeRow(Shared& shared, int parts, int row, int lane,
                         __nv_bfloat16* out) {
  auto cluster = cooperative_groups::this_cluster();
  RowState state[kMost];
  float maximum = -INFINITY, total = 0;
#pragma unroll
  for (int s = 0; s < kMost; ++s) {
    state[s] = {-INFINITY, 0, 0};
    if (s < parts) state[s] = *cluster.map_shared_rank(shared.state + row, s);
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
            PartialAt(shared, row, piece + i * kRowLanes), s));
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
__device__ inline void Merge(const Params& p, const Work& w, Shared& shared) {
  const int parts = static_cast<int>(gridDim.x);
  constexpr int kStep = kConsumers * kGroup / kRowLanes;
  const int share = (kRows + parts - 1) / parts;
  const int first = static_cast<int>(blockIdx.x) * share;
  const int end = min(first + share, min(kRows, w.queries - w.first_query));
  const int thread = static_cast<int>(threadIdx.x) - kGroup;
  const int lane = thread % kRowLanes;
#pragma unroll 1
  for (int row = first + thread / kRowLanes; row < end; row += kStep) {
    __nv_bfloat16* out = OutputAt(p, w, w.first_query + row);
    if (parts <= 3) {
      MergeRow<3, 4>(shared, parts, row, lane, out);
    } else {
      MergeRow<8, 2>(shared, parts, row, lane, out);
    }
  }
}

// Queries that do not matter.
__device__ inline void StoreZeros(const Params& p, const Work& w) {
  const int count = min(kRows, w.queries - w.first_query);
  auto* out = reinterpret_cast<uint4*>(OutputAt(p, w, w.first_query));
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) - kGroup; i < count * kDim / 8;
       i += kConsumers * kGroup) {
    out[i] = {0, 0, 0, 0};
  }
}

}  // namespace piserve::kernels::warpgroup_attention
