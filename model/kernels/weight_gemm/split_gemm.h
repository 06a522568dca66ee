// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// x W^T for a long sum and few tokens, where whole tiles would leave
// multiprocessors idle: the inputs are cut into parts, each part is a product
// of its own in FP32, and whoever reads the result adds them
// (AddNormArgs::parts). Every tile is cut alike, so a token's bits do not
// depend on its place.

// In how many parts; 0 where one wave of tiles does not hold the tokens or
// leaves too much of the device idle. Of sizes alone.
int SplitGemmParts(int tokens, int in, int out);

// Floats that the parts may take, whatever the tokens.
long SplitGemmFloats(int in, int out);

struct SplitGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  const __nv_bfloat16* w = nullptr;  // [out, in]
  float* parts = nullptr;            // [SplitGemmParts, tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Enqueues one kernel; pointers 16-byte aligned. A token's result does not
// depend on other tokens. cudaErrorInvalidValue for sizes that SplitGemmParts
// has no parts for.
cudaError_t LaunchSplitGemm(const SplitGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
