// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// y = x W^T, or y += x W^T with x and y apart, of few tokens and many inputs.
// Sums in FP32, in an order of their own but the same for all, one rounding at
// the end.
struct ClusterGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  const __nv_bfloat16* w = nullptr;  // [out, in]
  __nv_bfloat16* y = nullptr;        // [tokens, out]
  bool adds = false;
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Whether it is to be preferred to a library's product: it tiles these sizes,
// in a multiple of 256 and 2048 or more, out of 128, and fills the tiles and
// with them the device, once.
bool ClusterGemmSupports(int tokens, int in, int out);

// Enqueues one kernel; pointers 16-byte aligned; w is not written by work that
// may still be under way. A token's result depends neither on its place nor on
// other tokens. cudaErrorInvalidValue for sizes that it does not tile, whatever
// the waves, and for 2^31 outputs or more in all.
cudaError_t LaunchClusterGemm(const ClusterGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
