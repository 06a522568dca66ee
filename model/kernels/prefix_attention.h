// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

inline constexpr int kPrefixAttentionWords = 2;

struct PrefixAttentionArgs {
  // Query head h of token t of row r: q + (r * tokens + t) * token_stride +
  // h * head_dim. Rotated. 16-byte aligned, so is the stride.
  const __nv_bfloat16* q = nullptr;
  long token_stride = 0;  // elements
  // [.., cache_len, head_dim], one kv head. The first row is *row_base
  // (device), or 0 where that is null.
  const __nv_bfloat16* cache_k = nullptr;
  const __nv_bfloat16* cache_v = nullptr;
  const int* row_base = nullptr;
  const int* prefix_len =
      nullptr;                   // [rows], device: 1 .. min(tokens, cache_len)
  __nv_bfloat16* out = nullptr;  // [rows * tokens, heads * head_dim]
  // kPrefixAttentionWords in device memory, zero before the first call and for
  // calls of one stream only, with which a call of two kernels takes less time;
  // may be null.
  unsigned* begun = nullptr;
  int rows = 0;
  int tokens = 0;  // a row's, padding included
  int heads = 0;
  int head_dim = 0;
  int cache_len = 0;
};

// True where LaunchPrefixAttention has a kernel: head_dim 32 or 256, one kv
// head.
bool PrefixAttentionSupports(int head_dim, int kv_heads);

// Attention among a row's prefix tokens: every one sees keys 0 .. prefix_len
// - 1. The padding tokens' results are finite and of no use. Arithmetic,
// determinism and what is never used: as LaunchSuffixAttention. Bound by wgmma.
cudaError_t LaunchPrefixAttention(const PrefixAttentionArgs& args,
                                  cudaStream_t stream);

}  // namespace piserve::kernels
