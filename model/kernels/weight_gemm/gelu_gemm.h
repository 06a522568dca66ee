// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// LayerNorm, the projection behind it and GELU, of many tokens whose moments
// are known:
//   y[t, n] = gelu_tanh(scale_t * sum_k x[t, k] w[n, k] + shift_t * sums[n] +
//                       bias[n])
// with LaunchLayerMoments' (norm.h) scale and shift. What the norm multiplies
// by and adds belongs into w and bias. Sums in FP32, tanh to 2^-10.9, one
// rounding at the end. CUTLASS's main loop for Hopper with an epilogue of our
// own (tile.cuh).
struct GeluGemmArgs {
  const __nv_bfloat16* x = nullptr;     // [tokens, in]
  const float2* moments = nullptr;      // [tokens] (scale, shift)
  const __nv_bfloat16* w = nullptr;     // [out, in]
  const float* sums = nullptr;          // [out], of w's rows
  const __nv_bfloat16* bias = nullptr;  // [out]
  __nv_bfloat16* y = nullptr;           // [tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Whether it is to be preferred to a norm and a library's GEMM: outputs a
// multiple of 8, inputs one of 64, and waves of tiles that leave few
// multiprocessors idle.
bool GeluGemmSupports(int tokens, int in, int out);

// Enqueues one kernel; pointers 16-byte aligned. A token's result depends
// neither on its place nor on other tokens. Takes any number of tokens, and of
// inputs and outputs those multiples; else cudaErrorInvalidValue.
cudaError_t LaunchGeluGemm(const GeluGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
