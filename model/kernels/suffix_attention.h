// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// What the first token of a row may see: as much as the others, or the prefix
// and itself alone (pi0's state token, whose key is the first after the
// prefix).
enum class FirstToken { kSeesAll, kSeesItself };

struct SuffixAttentionArgs {
  // Query head h of token t of row r: q + (r * tokens + t) * token_stride +
  // h * head_dim. Rotated. 16-byte aligned, so is the stride.
  const __nv_bfloat16* q = nullptr;
  long token_stride = 0;  // elements
  // [.., cache_len, head_dim], one kv head; this call's own keys included. The
  // first row is *row_base (device), or 0 where that is null.
  const __nv_bfloat16* cache_k = nullptr;
  const __nv_bfloat16* cache_v = nullptr;
  const int* row_base = nullptr;
  const int* start = nullptr;    // [rows], device: valid prefix keys, >= 0
  __nv_bfloat16* out = nullptr;  // [rows * tokens, heads * head_dim]
  int rows = 0;
  int tokens = 0;  // a row's
  int heads = 0;
  int head_dim = 0;
  int cache_len = 0;
  int key_extra = 0;  // suffix keys in the cache, seen by every token
  FirstToken first_token = FirstToken::kSeesAll;
};

// True where LaunchSuffixAttention has a kernel: head_dim 32 or 256, one kv
// head.
bool SuffixAttentionSupports(int head_dim, int kv_heads);

// Attention of the suffix tokens over the cached prefix and the suffix: keys
// 0 .. start[row] + key_extra - 1, at most cache_len. out = sum p v / sum p
// with p = exp(head_dim^-0.5 q k - row's maximum); scores, maximum and sums in
// FP32, p rounded to bf16 where it meets v, one rounding at the end. A key past
// the visible ones is never used, whatever it holds.
//
// A row's keys may be shared out among the CTAs of a cluster, which merge their
// parts (the warpgroup kernel's rounded to FP16 on the way) in a fixed order
// through distributed shared memory: no workspace, and the bits of a row depend
// on its own inputs and on (rows, tokens, heads, cache_len) only. What bounds
// it: README.md.
// cudaErrorInvalidValue for a shape that is not supported.
// Source: openpi transformers_replace/models/gemma/modeling_gemma.py,
// eager_attention_forward (which rounds scores to bf16; here they stay FP32).
cudaError_t LaunchSuffixAttention(const SuffixAttentionArgs& args,
                                  cudaStream_t stream);

}  // namespace piserve::kernels
