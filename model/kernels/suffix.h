// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "model/kernels/step_table.h"

namespace piserve::kernels {

enum class Activation { kNone, kSilu };

// Which tokens of a row's suffix a kernel is about: `count` of them from
// `first` on, of `stride` tokens a row.
struct SuffixTokens {
  int count = 1;
  int first = 0;
  int stride = 1;

  // Of the i-th such token, counted over all rows.
  __device__ long Index(long i) const {
    return i / count * stride + first + i % count;
  }
};

struct SmallLinearArgs {
  const float* x = nullptr;       // [rows, in]
  const float* weight = nullptr;  // [out, in]
  StepTable bias;                 // rows of [out]
  __nv_bfloat16* y = nullptr;     // [.., out]: x's rows go to `tokens` of it
  SuffixTokens tokens;
  int rows = 0;
  int in = 0;  // at most 64
  int out = 0;
  Activation activation = Activation::kNone;
};

// y = bf16(activation(W x + b)) in FP32: the projections whose input is as
// narrow as an action or a state. Bound by latency.
cudaError_t LaunchSmallLinear(const SmallLinearArgs& args, cudaStream_t stream);

struct ActionStepArgs {
  // [.., width]: the expert's normalised output; read at `tokens`.
  const __nv_bfloat16* hidden = nullptr;
  SuffixTokens tokens;
  const float* weight = nullptr;  // [dim, width]
  const float* bias = nullptr;    // [dim]
  float* x = nullptr;             // [rows, dim], updated in place
  float* velocity = nullptr;      // [rows, dim] or null: v, for tests
  StepTable dt;                   // rows of one negative number
  int rows = 0;
  int width = 0;
  int dim = 0;
};

// One Euler step: x = x + dt * (W h + b), product and sum rounded apart as in
// openpi. FP32. Bound by latency.
// Source: openpi models_pytorch/pi0_pytorch.py, sample_actions.
cudaError_t LaunchActionStep(const ActionStepArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
