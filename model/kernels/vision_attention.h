// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

struct VisionAttentionArgs {
  const __nv_bfloat16* qkv = nullptr;  // [images * tokens, 3, heads, head_dim]
  __nv_bfloat16* out = nullptr;        // [images * tokens, heads * head_dim]
  int images = 0;
  int tokens = 0;  // an image's
  int heads = 0;
  int head_dim = 0;
};

// True where LaunchVisionAttention has a kernel: 256 tokens, head_dim 72.
bool VisionAttentionSupports(int tokens, int head_dim);

// Attention among the patches of each image: out = sum p v / sum p with
// p = exp(head_dim^-0.5 q k - row's maximum), in both sums rounded to bf16: sum
// p is taken over the weights that meet v. Scores, maximum and sums in FP32,
// one rounding at the end. An image's bits depend neither on its place nor on
// other images. Pointers 16-byte aligned. cudaErrorInvalidValue for a shape
// that is not supported.
cudaError_t LaunchVisionAttention(const VisionAttentionArgs& args,
                                  cudaStream_t stream);

}  // namespace piserve::kernels
