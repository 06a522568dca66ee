// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/reference/parameters.h"
#include "model/reference/trace.h"
#include "model/reference/vision.h"

namespace piserve::reference {

// The outer projections: from noisy actions, flow time and (pi0) state to the
// expert's tokens, and from its output to a velocity. All in fp32, in both
// modes (docs/pi0.md 2.10).
// Source: openpi pi0_pytorch.py, embed_suffix.
class Suffix {
 public:
  explicit Suffix(Parameters& parameters);

  struct Embedding {
    at::Tensor tokens;  // fp32 [B, T, width]
    at::Tensor cond;    // pi05: fp32 [B, width] for the adaptive norms
  };

  // state: fp32 [B, A], ignored by pi05. x: fp32 [B, H, A]. 0 <= t <= 1.
  Embedding Embed(const at::Tensor& state, const at::Tensor& x, float t,
                  const Trace& trace) const;

  // expert_out: [B, T, width]. fp32 [B, H, A] from its last H tokens.
  at::Tensor Velocity(const at::Tensor& expert_out, int action_horizon) const;

 private:
  bool pi05_;
  int width_;
  Linear action_in_;
  Linear action_out_;
  Linear state_;               // pi0
  Linear time_in_, time_out_;  // pi0 mixes time into the actions with them
};

}  // namespace piserve::reference
