// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "model/kernels/mma.cuh"

namespace piserve::kernels::tiled_attention {

// A thread's view of the softmax: the two rows of its fragment.
struct RowState {
  float maximum[2] = {-INFINITY, -INFINITY};  // of scores in units of log 2
  float sum[2] = {0, 0};                      // this thread's keys only
};

// Masks and scales the scores of one tile in place and returns the rows' maxima
// over this warp's keys.
template <int kTiles>
__device__ void MaskScores(float (&s)[kTiles][4], float scale, int first_key,
                           const int (&limit)[2], float (&maximum)[2]) {
  maximum[0] = maximum[1] = -INFINITY;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = first_key + n * 8 + i % 2;
      s[n][i] = key < limit[i / 2] ? s[n][i] * scale : -INFINITY;
      maximum[i / 2] = fmaxf(maximum[i / 2], s[n][i]);
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 1));
    maximum[r] = fmaxf(maximum[r], __shfl_xor_sync(~0u, maximum[r], 2));
  }
}

// Raises the running maximum to the tile's, and returns the factor that brings
// what was summed so far to it.
template <int kKeyWarps>
__device__ float RaiseMaximum(const float* reduce, float& maximum) {
  float raised = maximum;
#pragma unroll
  for (int w = 0; w < kKeyWarps; ++w) raised = fmaxf(raised, reduce[w]);
  // No key of this row yet: keep zeros as zeros.
  const float factor = raised == -INFINITY ? 1 : Exp2(maximum - raised);
  maximum = raised;
  return factor;
}

// p = exp2(s - maximum) as bf16 into `p_row`; returns the sum before rounding.
template <int kTiles>
__device__ float StoreWeights(const float (&s)[kTiles][4], int r, float maximum,
                              __nv_bfloat16* p_row) {
  const float shift = maximum == -INFINITY ? 0 : maximum;
  float sum = 0;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    const float p0 = Exp2(s[n][2 * r] - shift);
    const float p1 = Exp2(s[n][2 * r + 1] - shift);
    sum += p0 + p1;
    *reinterpret_cast<__nv_bfloat162*>(p_row + n * 8) =
        __floats2bfloat162_rn(p0, p1);
  }
  return sum;
}

}  // namespace piserve::kernels::tiled_attention
