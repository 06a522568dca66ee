// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// y += x W^T + bias, x and y apart. Sums in FP32, one rounding at the end.
struct BiasGemmArgs {
  const __nv_bfloat16* x = nullptr;     // [tokens, in]
  const __nv_bfloat16* w = nullptr;     // [out, in]
  const __nv_bfloat16* bias = nullptr;  // [out]
  __nv_bfloat16* y = nullptr;           // [tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Whether it is to be preferred to a library's product: it tiles these sizes,
// tokens a multiple of 384, in of 64 and 192 or more, out of 288, and in one
// wave that leaves few multiprocessors idle.
bool BiasGemmSupports(int tokens, int in, int out);

// Enqueues one kernel; pointers 16-byte aligned; w and bias are not written by
// work that may still be under way. A token's result depends neither on its
// place nor on other tokens. cudaErrorInvalidValue for sizes that it does
// not tile, whatever the waves.
cudaError_t LaunchBiasGemm(const BiasGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
