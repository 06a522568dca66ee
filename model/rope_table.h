// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace piserve {

// RoPE's inverse frequencies: as JAX has them, or rounded to bf16 as openpi's
// cast of the buffer leaves them (docs/pi0.md 2.7).
enum class RopeTable { kExact, kBf16 };

// 10000^(-2i/head_dim) for i < head_dim/2, with torch's bits in fp32; kBf16
// rounds each entry to bf16.
// Source: openpi transformers_replace modeling_gemma.py, GemmaRotaryEmbedding.
std::vector<float> InverseFrequencies(int head_dim, RopeTable table);

}  // namespace piserve
