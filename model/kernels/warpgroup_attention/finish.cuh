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
  constexpr int kLines = 8;  // at a time
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
  for (int row = first; row < first + 16; row += kLines) {
    uint4 line[kLines];
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      line[i] = *reinterpret_cast<const uint4*>(
          lines + SwizzledOffset(kGroupRows, row + i, c.lane));
    }
    const int query = w.first_query + c.group * kGroupRows + row;
#pragma unroll
    for (int i = 0; i < kLines; ++i) {
      if (query + i >= w.queries) return;
      reinterpret_cast<uint4*>(OutputAt(p, w, query + i))[c.lane] = line[i];
    }
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

// A row of the cluster's parts, merged in rank order by kRowLanes threads.
// Loads from other CTAs take long, so many are on their way at once.
inline constexpr int kRowLanes = 8, kBatch = 4;

template <int kSplits>
__device__ void MergeRow(Shared& shared, int row, int lane,
                         __nv_bfloat16* out) {
  auto cluster = cooperative_groups::this_cluster();
  auto* partial = reinterpret_cast<float*>(shared.tiles);
  float2 state[kSplits];
  float maximum = -INFINITY, total = 0;
#pragma unroll
  for (int s = 0; s < kSplits; ++s) {
    state[s] = *cluster.map_shared_rank(shared.state + row, s);
  }
#pragma unroll
  for (int s = 0; s < kSplits; ++s) maximum = fmaxf(maximum, state[s].x);
  float weight[kSplits];
#pragma unroll
  for (int s = 0; s < kSplits; ++s) {
    weight[s] = state[s].x == -INFINITY ? 0 : Exp2(state[s].x - maximum);
    total += weight[s] * state[s].y;
  }
  const float inverse = total > 0 ? 1 / total : 0;
#pragma unroll 1
  for (int first = lane * 4; first < kDim; first += kBatch * kRowLanes * 4) {
    float4 value[kBatch][kSplits];
#pragma unroll
    for (int i = 0; i < kBatch * kSplits; ++i) {
      const int column = first + i / kSplits * kRowLanes * 4;
      value[i / kSplits][i % kSplits] =
          *reinterpret_cast<const float4*>(cluster.map_shared_rank(
              partial + PartialAt(row, column), i % kSplits));
    }
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      float4 sum = {0, 0, 0, 0};
#pragma unroll
      for (int s = 0; s < kSplits; ++s) {
        sum.x += weight[s] * value[i][s].x;
        sum.y += weight[s] * value[i][s].y;
        sum.z += weight[s] * value[i][s].z;
        sum.w += weight[s] * value[i][s].w;
      }
      *reinterpret_cast<uint2*>(out + first + i * kRowLanes * 4) = {
          PackPair(sum.x * inverse, sum.y * inverse),
          PackPair(sum.z * inverse, sum.w * inverse)};
    }
  }
}

// This CTA's share of the rows.
template <int kSplits>
__device__ void MergeRows(const Params& p, const Work& w, Shared& shared) {
  constexpr int kShare = (kRows + kSplits - 1) / kSplits;
  constexpr int kStep = kConsumers * kGroup / kRowLanes;
  const int first = static_cast<int>(blockIdx.x) * kShare;
  const int end = min(first + kShare, min(kRows, w.queries - w.first_query));
  const int thread = static_cast<int>(threadIdx.x) - kGroup;
  for (int row = first + thread / kRowLanes; row < end; row += kStep) {
    MergeRow<kSplits>(shared, row, thread % kRowLanes,
                      OutputAt(p, w, w.first_query + row));
  }
}

__device__ inline void Merge(const Params& p, const Work& w, Shared& shared) {
  switch (gridDim.x) {  // what the plan chooses among
    case 2:
      return MergeRows<2>(p, w, shared);
    case 3:
      return MergeRows<3>(p, w, shared);
    case 4:
      return MergeRows<4>(p, w, shared);
    case 6:
      return MergeRows<6>(p, w, shared);
    case 8:
      return MergeRows<8>(p, w, shared);
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
