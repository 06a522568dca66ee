// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/engine/launcher.h"
#include "model/engine/weights.h"
#include "model/variant.h"

namespace piserve::engine {

// Gate and up projection and GeGLU of a Gemma layer.
struct GatedUp {
  const char* what;  // for errors
  const GemmaSize& size;
  GateUp order;               // of the rows of w
  const at::Tensor& x;        // [tokens, width]
  const at::Tensor& w;        // [2 * mlp, width]
  const at::Tensor& gate_up;  // [tokens, 2 * mlp], where kGateFirst; scratch
  const at::Tensor& y;        // [tokens, mlp]
  int tokens = 0;
};

// In one kernel where the rows are packed for it, else in two.
void EnqueueGatedUp(const GatedUp& gated_up, Launcher& launcher);

}  // namespace piserve::engine
