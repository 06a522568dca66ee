// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace piserve::kernels {

struct EmbedPrefixArgs {
  // [rows, slots * patches, width]: live cameras of a row come first.
  const __nv_bfloat16* image_tokens = nullptr;
  const __nv_bfloat16* embedding = nullptr;  // [vocab, width]
  // [.., max_tokens]; the first row is *row_base.
  const std::int32_t* tokens = nullptr;
  const int* row_base = nullptr;
  const int* image_len = nullptr;   // [rows], live cameras * patches
  const int* prefix_len = nullptr;  // [rows], image_len + prompt tokens
  __nv_bfloat16* out = nullptr;     // [rows, capacity, width]
  float scale = 0;                  // sqrt(width)
  int rows = 0;
  int slot_tokens = 0;  // slots * patches
  int max_tokens = 0;
  int capacity = 0;
  int width = 0;
  int vocab = 0;
};

// Lays out each row's compacted prefix: its live images, its prompt tokens
// (embedding * sqrt(width), rounded once), zeros up to `capacity`. A token id
// outside the vocabulary becomes zeros (the host refuses it before).
// Source: openpi models_pytorch/pi0_pytorch.py, embed_prefix.
cudaError_t LaunchEmbedPrefix(const EmbedPrefixArgs& args, cudaStream_t stream);

struct RopeScatterArgs {
  // [rows, seq, (heads + 2 * kv_heads) * head_dim]: q heads, k heads, v heads;
  // q is rotated in place. With heads == 0: k and v only.
  __nv_bfloat16* qkv = nullptr;
  // [positions, head_dim / 2] (cos, sin), 16-byte aligned as the others are
  const float2* table = nullptr;
  // [rows]: where the row's first token goes in the cache and in the table;
  // null for 0.
  const int* start = nullptr;
  const int* row_base = nullptr;     // first row of the caches; null for 0
  __nv_bfloat16* cache_k = nullptr;  // [.., cache_len, kv_heads, head_dim]
  __nv_bfloat16* cache_v = nullptr;
  int rows = 0;
  int seq = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int cache_len = 0;
  int start_offset = 0;  // added to start
  // Where qkv is the projection of tokens of which an RMSNorm has only applied
  // its gain: the squares of their `width` values in `parts` sums [parts, rows
  // * seq]. Everything is then multiplied by rsqrt(sum / width + 1e-6). Null:
  // nothing is.
  const float* squares = nullptr;
  int parts = 0;
  int width = 0;
};

// Rotates q and k by their positions and puts k and v into the cache.
// out[d] = x[d] cos - x[d + D/2] sin, out[d + D/2] = x[d + D/2] cos + x[d] sin,
// in FP32, rounded once. Bound by latency at one row.
cudaError_t LaunchRopeScatter(const RopeScatterArgs& args, cudaStream_t stream);

// out = bf16(gelu_tanh(gate) * up) of [rows, 2 * width] -> [rows, width].
//   gate_up  gate columns first
cudaError_t LaunchGeglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out,
                        int rows, int width, cudaStream_t stream);

}  // namespace piserve::kernels
