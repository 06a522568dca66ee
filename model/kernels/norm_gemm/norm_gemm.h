// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

enum class NormGemmActivation { kNone, kGeluTanh };

// LayerNorm and the projection behind it in one kernel:
//   y[t, n] = act(r_t * (sum_k x[t, k] w[n, k] - m_t * sums[n]) + bias[n])
// with m_t the mean of x[t] and r_t = 1 / sqrt(variance + 1e-6). What the norm
// multiplies by and adds belongs into w and bias. Sums in FP32, tanh to
// 2^-10.9, one rounding at the end. m and r come from sums of x and x^2 in one
// pass: r is good to 2^-18 (1 + m^2 / variance).
struct NormGemmArgs {
  const __nv_bfloat16* x = nullptr;     // [tokens, in]
  const __nv_bfloat16* w = nullptr;     // [out, in]
  const float* sums = nullptr;          // [out], of w's rows
  const __nv_bfloat16* bias = nullptr;  // [out]
  __nv_bfloat16* y = nullptr;           // [tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
  NormGemmActivation activation = NormGemmActivation::kNone;
};

// Whether it tiles these sizes, tokens a multiple of 256, in of 128, out of 8,
// and in one wave: with more a norm and a library's GEMM are faster.
bool NormGemmSupports(int tokens, int in, int out);

// Enqueues one kernel; pointers 16-byte aligned; w, sums and bias are not
// written by work that may still be under way. A token's result depends
// neither on its place nor on other tokens. cudaErrorInvalidValue for sizes
// that NormGemmSupports refuses.
cudaError_t LaunchNormGemm(const NormGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
