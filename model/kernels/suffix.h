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
  __device__ long Index(int i) const {
    return static_cast<long>(i / count) * stride + first + i % count;
  }
};

struct SmallLinearArgs {
  const float* x = nullptr;       // [rows, in]
  const float* weight = nullptr;  // [in, out], transposed
  StepTable bias;                 // rows of [out]
  __nv_bfloat16* y = nullptr;     // [.., out]: x's rows go to `tokens` of it
  SuffixTokens tokens;
  int rows = 0;
  int in = 0;   // at most 64
  int out = 0;  // a multiple of 4
  Activation activation = Activation::kNone;
};

// y = bf16(activation(W x + b)) in FP32: the projections whose input is as
// narrow as an action or a state. A thread keeps the weights of its columns in
// registers, read before the kernel waits for its predecessor: nothing enqueued
// shortly before may write them. Bound by latency, from some thousand rows on
// by FP32.
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
  int width = 0;  // a multiple of 8
  int dim = 0;
};

// One Euler step: x = x + dt * (W h + b), product and sum rounded apart as in
// openpi. FP32. A block keeps the weights (of 1024 columns by 32 dimensions) in
// registers and passes over the tokens. They and the bias are read before the
// kernel waits for its predecessor: nothing enqueued shortly before may write
// them. Bound by latency, from some thousand rows on by FP32.
// Source: openpi models_pytorch/pi0_pytorch.py, sample_actions.
cudaError_t LaunchActionStep(const ActionStepArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
