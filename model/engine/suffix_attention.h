// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/engine/launcher.h"
#include "model/engine/optimisations.h"
#include "model/kernels/suffix_attention.h"
#include "model/variant.h"

namespace piserve::engine {

// Attention of the suffix over the cached prefix and itself.
struct SuffixAttention {
  const GemmaSize& size;
  const at::Tensor& qkv;    // [.., (heads + 2 kv_heads) * head_dim], rotated
  at::Tensor keys, values;  // one layer's: [R, cache_len, kv_heads, head_dim]
  const at::Tensor& prefix_len;  // int32 [R]
  const at::Tensor& out;         // [.., heads * head_dim]
  int rows = 0;
  int tokens = 0;       // a row's
  int suffix_keys = 0;  // in the cache, after the prefix
  kernels::FirstToken first_token = kernels::FirstToken::kSeesAll;
};

// By our own kernel where `optimisations` wants that and it knows the shape,
// else by torch's flash attention.
void EnqueueSuffixAttention(const SuffixAttention& attention,
                            const Optimisations& optimisations,
                            Launcher& launcher);

}  // namespace piserve::engine
