// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "model/kernels/suffix.h"

namespace piserve::kernels {

struct EulerStepArgs {
  // [.., width]: the expert's normalised output; read at `tokens`.
  const __nv_bfloat16* hidden = nullptr;
  SuffixTokens tokens;
  const float* out_weight = nullptr;  // [dim, width], action_out_proj
  const float* out_bias = nullptr;    // [dim]
  float* x = nullptr;                 // [rows, dim], updated in place
  float* velocity = nullptr;          // [rows, dim] or null: v, for tests
  StepTable dt;                       // rows of one negative number
  // The next step's input. Transposed: [dim, in_width].
  const float* in_weight = nullptr;
  // Rows of [in_width]: the row of the step that ends here holds what the next
  // one's projection adds.
  StepTable in_offset;
  __nv_bfloat16* z = nullptr;  // [.., in_width]; written at `z_tokens`
  SuffixTokens z_tokens;
  Activation activation = Activation::kNone;
  int rows = 0;
  int width = 0;     // a multiple of 8, at most 1024
  int dim = 0;       // a multiple of 4, at most 32
  int in_width = 0;  // a multiple of 4, at most 1024
};

// One Euler step and the projection that the next one starts with:
//   v = W_out h + b; x = x + dt * v (product and sum rounded apart)
//   z = bf16(activation(W_in x + offset))
// in FP32; z after the last step is of no use. The step index is only read.
// Clusters of four CTAs pass over the tokens: each CTA makes a quarter of v
// and, from all of x, a quarter of z, with its share of both weights in
// registers, read before the kernel waits for its predecessor: nothing enqueued
// shortly before may write them. Bound by latency. Source: openpi
// models_pytorch/pi0_pytorch.py, sample_actions, embed_suffix.
cudaError_t LaunchEulerStep(const EulerStepArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
