// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "model/kernels/step_table.h"

namespace piserve::kernels {

// Normalisation over the last dimension of [rows, width] bf16. Statistics and
// affine in FP32, one rounding at the end. width is a multiple of 8, at most
// 8192; pointers 16-byte aligned. `out` may be `x`. Bound by latency below a
// few hundred rows, by HBM above.

// y = (x - mean) * rsqrt(var + 1e-6) * weight + bias, biased variance.
// Source: openpi transformers_replace/models/siglip/modeling_siglip.py.
cudaError_t LaunchLayerNorm(const __nv_bfloat16* x, const float* weight,
                            const float* bias, __nv_bfloat16* out, int rows,
                            int width, cudaStream_t stream);

// What LayerNorm does to a row but for its affine, as y = x * scale + shift:
// scale = rsqrt(var + 1e-6), shift = -mean * scale; to `moments` [rows], for a
// GEMM that applies them (weight_gemm/gelu_gemm.h).
cudaError_t LaunchLayerMoments(const __nv_bfloat16* x, float2* moments,
                               int rows, int width, cudaStream_t stream);

// y = x * rsqrt(mean(x^2) + 1e-6) * gain, with gain = 1 + w of the checkpoint.
// Source: openpi transformers_replace/models/gemma/modeling_gemma.py.
cudaError_t LaunchRmsNorm(const __nv_bfloat16* x, const float* gain,
                          __nv_bfloat16* out, int rows, int width,
                          cudaStream_t stream);

// A residual addition and the norm that follows it, in one kernel:
//   x = bf16(x + gate * y), in place; h = norm(x).
// y is bf16, or two FP32 parts that are added here (split_gemm.h).
struct AddNormArgs {
  __nv_bfloat16* x = nullptr;        // [rows, width]
  const __nv_bfloat16* y = nullptr;  // [rows, width]; or no addition
  const float* parts = nullptr;      // [2, rows, width]; instead of y
  __nv_bfloat16* h = nullptr;        // [rows, width]; may be y
  // Rows of [width]; only adaRMS has more than one. Gate: adaRMS's, 1 without a
  // base, refused for the others; scale: LayerNorm's weight, RMSNorm's gain
  // 1 + w, adaRMS's scale; shift: bias, none, adaRMS's shift.
  StepTable gate = {};
  StepTable scale = {};
  StepTable shift = {};
  int rows = 0;
  int width = 0;
};

// The norms above, and adaRMS's, each after its residual addition:
// h = x * rsqrt(mean(x^2) + 1e-6) * (1 + scale) + shift.
cudaError_t LaunchAddLayerNorm(const AddNormArgs& args, cudaStream_t stream);
cudaError_t LaunchAddRmsNorm(const AddNormArgs& args, cudaStream_t stream);
cudaError_t LaunchAddAdaRmsNorm(const AddNormArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
