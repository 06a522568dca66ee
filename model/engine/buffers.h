// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/engine/weights.h"
#include "model/kernels/wave.h"
#include "model/rope_table.h"
#include "model/variant.h"

namespace piserve::engine {

// What a wave may need at most.
struct Capacity {
  int rows = 1;        // of a wave, padded ones included
  int micro_rows = 1;  // of a micro-wave, whose prefix is computed at once
};

// All device memory that graphs read and write, besides weights and what
// attention takes from their pool. Made once: its addresses are in the graphs.
//
// Row-major; bf16 unless said otherwise. R rows of a wave, M of a micro-wave.
struct Buffers {
  Buffers(const Variant& variant, const EngineWeights& weights,
          const Capacity& capacity, RopeTable rope);

  // Fills everything but tables with NaN (floats) or garbage: a test's way to
  // show that nothing stale is ever read.
  void Poison();

  int cache_len = 0;  // keys a row has room for, prefix and suffix

  // The wave.
  at::Tensor pixels;      // uint8 [R, 3, image, image, 3]
  at::Tensor tokens;      // int32 [R, L]
  at::Tensor state;       // fp32 [R, action_dim]
  at::Tensor x;           // fp32 [R, H, action_dim]: noise, then actions
  at::Tensor image_len;   // int32 [R]
  at::Tensor prefix_len;  // int32 [R]
  at::Tensor next_row;    // int32 [1]
  at::Tensor step;        // int32 [1], row of the step tables
  at::Tensor call;        // int32 [kExpertMaxRows, 3]: kernels::ExpertCall
  at::Tensor keys;        // [depth, R, cache_len, kv_heads, head_dim]
  at::Tensor values;

  // The micro-wave: kernels::MicroWave.
  at::Tensor row_base;          // int32 [1]
  at::Tensor micro_image_len;   // int32 [M]
  at::Tensor micro_prefix_len;  // int32 [M]
  at::Tensor key_start;         // int32 [M + 1]

  // Vision, N = 3 M images.
  at::Tensor patches;         // [N * tokens, patch_pitch]
  at::Tensor patch_grid;      // fp32 [N * tokens, width]
  at::Tensor vision_x;        // [N * tokens, width]
  at::Tensor vision_h;        // [N * tokens, width]
  at::Tensor vision_moments;  // fp32 [N * tokens, 2]: scale, shift
  at::Tensor vision_qkv;      // [N * tokens, 3 * heads * head]
  at::Tensor vision_o;        // [N * tokens, heads * head]
  at::Tensor vision_mlp;      // [N * tokens, mlp]
  at::Tensor image_tokens;    // [N * tokens, VLM width]

  // Prefill, P = M * prefix_len().
  at::Tensor prefix_x;        // [P, width]
  at::Tensor prefix_h;        // [P, width]
  at::Tensor prefix_qkv;      // [P, (heads + 2 kv_heads) * head_dim]
  at::Tensor prefix_o;        // [P, heads * head_dim]
  at::Tensor prefix_gate_up;  // [P, 2 * mlp]
  at::Tensor prefix_act;      // [P, mlp]
  at::Tensor prefix_parts;    // fp32 [parts, tokens, width] of a split product
  at::Tensor prefix_squares;  // fp32 [width / kAddGemmSquares, P]: of prefix_x
  at::Tensor prefix_begun;    // int32 [kPrefixAttentionWords]

  // Denoising, Q = R * suffix_len().
  at::Tensor mixed;           // [Q, width]: pi0's action MLP in between
  at::Tensor suffix_x;        // [Q, width]
  at::Tensor suffix_h;        // [Q, width]
  at::Tensor suffix_y;        // [Q, width]
  at::Tensor suffix_qkv;      // [Q, (heads + 2 kv_heads) * head_dim]
  at::Tensor suffix_o;        // [Q, heads * head_dim]
  at::Tensor suffix_gate_up;  // [Q, 2 * mlp]
  at::Tensor suffix_act;      // [Q, mlp]
  at::Tensor velocity;        // fp32 [R * H, action_dim] of the last step

  at::Tensor rope;  // fp32 [cache_len + 1, head_dim / 2, 2]: cosine, sine

  kernels::WaveInput wave() const;
  kernels::MicroWave micro_wave() const;
};

// Typed device pointers of a tensor.
template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

}  // namespace piserve::engine
