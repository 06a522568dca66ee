// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/tiled_attention/tile.cuh"

namespace piserve::kernels::tiled_attention {

// One warp's 16 rows by kWarpKeys keys of q k. Two chains of accumulators over
// alternate k steps hide the latency of one.
template <int kDim, int kM>
__device__ void Scores(const __nv_bfloat16* q, const __nv_bfloat16* k,
                       float (&s)[Layout<kDim, kM>::kWarpKeys / 8][4]) {
  using L = Layout<kDim, kM>;
  constexpr int kTiles = L::kWarpKeys / 8;
  const int lane = threadIdx.x % 32;
  float sum[2][kTiles][4] = {};
  const __nv_bfloat16* q_at = q + lane % 16 * L::kPitch + lane / 16 * 8;
  const __nv_bfloat16* k_at =
      k + (lane % 8 + lane / 16 * 8) * L::kPitch + lane / 8 % 2 * 8;
#pragma unroll
  for (int d = 0; d < kDim / 16; ++d) {
    std::uint32_t a[4];
    LoadMatrix4(q_at + d * 16, a);
#pragma unroll
    for (int n = 0; n < kTiles / 2; ++n) {
      std::uint32_t b[4];
      LoadMatrix4(k_at + n * 16 * L::kPitch + d * 16, b);
      Mma(sum[d % 2][2 * n], a, b[0], b[1]);
      Mma(sum[d % 2][2 * n + 1], a, b[2], b[3]);
    }
  }
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] = sum[0][n][i] + sum[1][n][i];
  }
}

// out += p v for all rows and this warp's columns, over `steps` runs of 16
// keys.
template <int kDim, int kM>
__device__ void AddValues(
    const __nv_bfloat16* p, const __nv_bfloat16* v, int steps,
    float (&out)[kM / 16][Layout<kDim, kM>::kWarpDim / 8][4]) {
  using L = Layout<kDim, kM>;
  const int lane = threadIdx.x % 32;
  const __nv_bfloat16* p_at = p + lane % 16 * L::kPitchP + lane / 16 * 8;
  const __nv_bfloat16* v_at = v + lane % 16 * L::kPitch +
                              threadIdx.x / 32 * L::kWarpDim + lane / 16 * 8;
#pragma unroll
  for (int step = 0; step < kTileKeys / 16; ++step) {
    if (step >= steps) break;
    std::uint32_t b[L::kWarpDim / 16][4];
#pragma unroll
    for (int n = 0; n < L::kWarpDim / 16; ++n) {
      LoadMatrix4Transposed(v_at + step * 16 * L::kPitch + n * 16, b[n]);
    }
#pragma unroll
    for (int m = 0; m < kM / 16; ++m) {
      std::uint32_t a[4];
      LoadMatrix4(p_at + m * 16 * L::kPitchP + step * 16, a);
#pragma unroll
      for (int n = 0; n < L::kWarpDim / 16; ++n) {
        Mma(out[m][2 * n], a, b[n][0], b[n][1]);
        Mma(out[m][2 * n + 1], a, b[n][2], b[n][3]);
      }
    }
  }
}

}  // namespace piserve::kernels::tiled_attention
