// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cooperative_groups.h>

#include <cmath>

#include "model/kernels/tiled_attention/tile.cuh"

namespace piserve::kernels::tiled_attention {

// Merges the cluster's partial results of this CTA's share of the rows.
template <int kDim, int kM>
__device__ void Merge(const SuffixAttentionArgs& a, int row, int first,
                      float* partial, float2* state) {
  using L = Layout<kDim, kM>;
  constexpr int kRuns = kDim / 4;
  auto cluster = cooperative_groups::this_cluster();
  const int splits = static_cast<int>(cluster.num_blocks());
  const int rank = static_cast<int>(cluster.block_rank());
  const int share = kM / splits;
  const int queries = a.tokens * a.heads;
  __nv_bfloat16* out = a.out + static_cast<long>(row) * queries * kDim;
  for (int i = threadIdx.x; i < share * kRuns; i += kThreads) {
    const int local = rank * share + i / kRuns;
    const int column = i % kRuns * 4;
    if (first + local >= queries) break;
    float2 part[kMaxSplits];
    float4 value[kMaxSplits];
    float maximum = -INFINITY;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      part[s] = *cluster.map_shared_rank(state + local, s);
      value[s] = *reinterpret_cast<const float4*>(
          cluster.map_shared_rank(partial + local * L::kPitchO + column, s));
      maximum = fmaxf(maximum, part[s].x);
    }
    float4 sum = {0, 0, 0, 0};
    float total = 0;
#pragma unroll
    for (int s = 0; s < kMaxSplits; ++s) {
      if (s >= splits) break;
      const float weight =
          part[s].x == -INFINITY ? 0 : Exp2(part[s].x - maximum);
      total += weight * part[s].y;
      sum.x += weight * value[s].x;
      sum.y += weight * value[s].y;
      sum.z += weight * value[s].z;
      sum.w += weight * value[s].w;
    }
    const float inverse = total > 0 ? 1 / total : 0;
    __nv_bfloat162 packed[2] = {
        __floats2bfloat162_rn(sum.x * inverse, sum.y * inverse),
        __floats2bfloat162_rn(sum.z * inverse, sum.w * inverse)};
    *reinterpret_cast<uint2*>(out + static_cast<long>(first + local) * kDim +
                              column) = *reinterpret_cast<uint2*>(packed);
  }
}

}  // namespace piserve::kernels::tiled_attention
