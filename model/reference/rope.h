// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/rope_table.h"

namespace piserve::reference {

// The core's table as a tensor: fp32 [head_dim/2].
at::Tensor FrequencyTensor(int head_dim, RopeTable table);

// cos and sin of position times frequency, of the dtype of the activations.
struct Rotation {
  at::Tensor cos;  // [B, 1, S, C/2]
  at::Tensor sin;  // [B, 1, S, C/2]
};

// positions: int64 [B, S]. Angles, cosines and sines are fp32, rounded to
// `dtype` at the end.
Rotation RotationAt(const at::Tensor& positions,
                    const at::Tensor& inverse_frequencies,
                    at::ScalarType dtype);

// Turns dimension d with d + C/2. x: [B, N, S, C]. Both products and their sum
// are rounded.
// Source: openpi transformers_replace modeling_gemma.py, apply_rotary_pos_emb.
at::Tensor ApplyRope(const at::Tensor& x, const Rotation& rotation);

}  // namespace piserve::reference
