// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// y = gelu_tanh(x G^T) * (x U^T) as one GEMM: gate and up never reach memory.
// Sums and products in FP32, tanh to 2^-10.9, one rounding at the end.
// CUTLASS's main loop for Hopper with an epilogue of our own (tile.cuh), or,
// for tiles of 256 by 192, a main loop of our own (pairs/).

// Rows of one weight tile: 128 outputs, gate and up.
inline constexpr int kGegluTileRows = 256;

// Row of the packed weights that holds the gate of an output; its up is
// kGegluUpOffset rows further. The order is the one in which a warp meets rows
// in its accumulators and stores four outputs at once.
inline constexpr int kGegluUpOffset = 8;
__host__ __device__ constexpr int GegluGateRow(int output) {
  const int tile = output / 128, warp = output / 16 % 8;
  const int lane = output / 4 % 4, half = output / 2 % 2, pair = output % 2;
  return tile * kGegluTileRows + half * 128 + warp * 16 + lane * 2 + pair;
}

// Whether the sizes fit: outputs a multiple of 128, inputs one of 64.
bool GegluGemmSupports(int in, int out);

struct GegluGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  const __nv_bfloat16* w = nullptr;  // [2 * out, in], rows as GegluGateRow says
  __nv_bfloat16* y = nullptr;        // [tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Enqueues one kernel; pointers 16-byte aligned. A token's result depends
// neither on its place nor on other tokens. cudaErrorInvalidValue for sizes
// that GegluGemmSupports refuses.
cudaError_t LaunchGegluGemm(const GegluGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
