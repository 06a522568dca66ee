// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// y += x W^T for many tokens, by large tiles: they read less for what they
// compute, and so take less power, than those a library prefers. Sum and
// addition in FP32, one rounding at the end. A main loop of our own (pairs/).

inline constexpr int kAddGemmSquares = 128;

struct AddGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  const __nv_bfloat16* w = nullptr;  // [out, in]
  __nv_bfloat16* y = nullptr;        // [tokens, out]
  // For an RMSNorm behind, where gain is not null: y's new values times gain,
  // and their squares, each summed over kAddGemmSquares outputs.
  const float* gain = nullptr;      // [out]
  __nv_bfloat16* gained = nullptr;  // [tokens, out]
  float* squares = nullptr;         // [out / kAddGemmSquares, tokens]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Whether it is to be preferred: outputs a multiple of 256, inputs one of 64
// and many, and waves of tiles that leave few multiprocessors idle.
bool AddGemmSupports(int tokens, int in, int out);

// Enqueues one kernel; pointers 16-byte aligned. A token's result depends
// neither on its place nor on other tokens. Takes any number of tokens with
// less than 2^31 outputs in all, and of inputs and outputs those multiples;
// else cudaErrorInvalidValue.
cudaError_t LaunchAddGemm(const AddGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
