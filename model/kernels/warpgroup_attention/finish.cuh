// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/consume.cuh"

// From a consumer's sums towards the result.
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

// Of up to `count` queries that do not matter, by all consumers.
__device__ inline void StoreZeros(const Params& p, const Work& w, int count) {
  count = min(count, w.queries - w.first_query);
  auto* out = reinterpret_cast<uint4*>(OutputAt(p, w, w.first_query));
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) - kGroup; i < count * kDim / 8;
       i += kConsumers * kGroup) {
    out[i] = {0, 0, 0, 0};
  }
}

}  // namespace piserve::kernels::warpgroup_attention
