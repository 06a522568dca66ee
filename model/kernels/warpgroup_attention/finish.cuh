// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include "model/kernels/warpgroup_attention/consume.cuh"

// From a consumer's sums to the result: at once, or by way of the cluster's
// merge where the keys were split.
namespace piserve::kernels::warpgroup_attention {

__device__ inline __nv_bfloat16* OutputAt(const Params& p, const Work& w,
                                          int query) {
  return p.args.out + (static_cast<long>(w.row) * w.queries + query) * kDim;
}

// The warpgroup's queries have served; a warp turns its rows into lines of
// 512 bytes in their place.
__device__ inline void StoreResult(const Params& p, const Work& w,
                                   Shared& shared, const Consumer& c) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + c.group), "n"(kGroup) : "memory");
  char* lines = shared.q[c.group];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float inverse = c.sum[r] > 0 ? 1 / c.sum[r] : 0;
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      *reinterpret_cast<std::uint32_t*>(
          lines + SwizzledOffset(kGroupRows, c.row + 8 * r, n) +
          c.lane % 4 * 4) = PackPair(c.out[n * 4 + 2 * r] * inverse,
                                     c.out[n * 4 + 2 * r + 1] * inverse);
    }
  }
  __syncwarp();
  const int first = static_cast<int>(threadIdx.x) % kGroup / 32 * 16;
#pragma unroll
  for (int row = first; row < first + 16; ++row) {
    const int query = w.first_query + c.group * kGroupRows + row;
    if (query >= w.queries) break;
    reinterpret_cast<uint4*>(OutputAt(p, w, query))[c.lane] =
        *reinterpret_cast<const uint4*>(
            lines + SwizzledOffset(kGroupRows, row, c.lane));
  }
}

// Column of a partial result, permuted so that neither side conflicts.
__device__ inline int PartialAt(int row, int column) {
  return row * kDim + (column ^ (row % 8 * 8));
}

__device__ inline void StorePartial(Shared& shared, const Consumer& c) {
  auto* partial = reinterpret_cast<float*>(shared.tiles);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = c.group * kGroupRows + c.row + 8 * r;
    if (c.lane % 4 == 0) shared.state[row] = {c.maximum[r], c.sum[r]};
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      const int at = PartialAt(row, n * 8 + c.lane % 4 * 2);
      *reinterpret_cast<float2*>(partial + at) = {c.out[n * 4 + 2 * r],
                                                  c.out[n * 4 + 2 * r + 1]};
    }
  }
}

// Four columns of a row, merged in rank order.
__device__ inline float4 MergedAt(Shared& shared, int splits, int row,
                                  int column) {
  auto cluster = cooperative_groups::this_cluster();
  auto* partial = reinterpret_cast<float*>(shared.tiles);
  float2 state[kMaxSplits];
  float4 value[kMaxSplits];
  float maximum = -INFINITY;
#pragma unroll
  for (int s = 0; s < kMaxSplits; ++s) {
    if (s >= splits) break;
    state[s] = *cluster.map_shared_rank(shared.state + row, s);
    value[s] = *reinterpret_cast<const float4*>(
        cluster.map_shared_rank(partial + PartialAt(row, column), s));
    maximum = fmaxf(maximum, state[s].x);
  }
  float4 sum = {0, 0, 0, 0};
  float total = 0;
#pragma unroll
  for (int s = 0; s < kMaxSplits; ++s) {
    if (s >= splits) break;
    const float weight =
        state[s].x == -INFINITY ? 0 : Exp2(state[s].x - maximum);
    total += weight * state[s].y;
    sum.x += weight * value[s].x;
    sum.y += weight * value[s].y;
    sum.z += weight * value[s].z;
    sum.w += weight * value[s].w;
  }
  const float inverse = total > 0 ? 1 / total : 0;
  return {sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse};
}

// This CTA's share of the rows.
__device__ inline void Merge(const Params& p, const Work& w, Shared& shared) {
  const int splits = static_cast<int>(gridDim.x);
  const int share = (kRows + splits - 1) / splits;
  const int first = static_cast<int>(blockIdx.x) * share;
  const int rows = min(share, min(kRows, w.queries - w.first_query) - first);
  const int thread = static_cast<int>(threadIdx.x) - kGroup;
  for (int i = thread; i < rows * kDim / 4; i += kConsumers * kGroup) {
    const int row = first + i / (kDim / 4), column = i % (kDim / 4) * 4;
    const float4 value = MergedAt(shared, splits, row, column);
    *reinterpret_cast<uint2*>(OutputAt(p, w, w.first_query + row) + column) = {
        PackPair(value.x, value.y), PackPair(value.z, value.w)};
  }
}

// Queries that do not matter.
__device__ inline void StoreZeros(const Params& p, const Work& w) {
  const int count = min(kRows, w.queries - w.first_query);
  auto* out = reinterpret_cast<uint4*>(OutputAt(p, w, w.first_query));
  for (int i = threadIdx.x; i < count * kDim / 8; i += kThreads) {
    out[i] = {0, 0, 0, 0};
  }
}

}  // namespace piserve::kernels::warpgroup_attention
