// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "model/kernels/prefix.h"

namespace piserve::kernels {

// x W^T with RoPE and the way to the cache in the epilogue: unrotated queries
// and keys never reach memory. Sums and rotation in FP32, one rounding at the
// end. CUTLASS's main loop for Hopper with an epilogue of our own (tile.cuh).

// Whether the sizes fit: one kv head, heads of 256, inputs a multiple of 64.
// With heads == 0 keys and values only.
bool RopeGemmSupports(int in, int heads, int kv_heads, int head_dim);

struct RopeGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [rows * seq, in]
  // [(heads + 2) * 256, in]: q heads, k, v; within each RopePairColumn.
  const __nv_bfloat16* w = nullptr;
  int in = 0;
  // Where results go: what LaunchRopeScatter would make of the product in
  // `qkv`, whose keys and values are left as they are. `order` has no meaning:
  // all that is written is in order.
  RopeScatterArgs to;
};

// Enqueues one kernel; pointers 16-byte aligned. A
// token's result depends neither on its place among tokens nor on other tokens.
// cudaErrorInvalidValue for sizes that RopeGemmSupports refuses.
cudaError_t LaunchRopeGemm(const RopeGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
