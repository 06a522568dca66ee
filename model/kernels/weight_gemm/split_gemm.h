// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace piserve::kernels {

// x W^T for a long sum and few tokens, where whole tiles would leave
// multiprocessors idle: the inputs are halved, each half is a product of its
// own in FP32, and whoever reads the result adds them (AddNormArgs::parts).
// Every tile is halved alike, so a token's bits do not depend on its place.
inline constexpr int kSplitGemmParts = 2;

// Whether it fills the device with one wave of tiles: never with more tokens
// than kSplitGemmTokens.
inline constexpr long kSplitGemmTokens = 832;
bool SplitGemmSupports(int tokens, int in, int out);

struct SplitGemmArgs {
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  const __nv_bfloat16* w = nullptr;  // [out, in]
  float* parts = nullptr;            // [kSplitGemmParts, tokens, out]
  int tokens = 0;
  int in = 0;
  int out = 0;
};

// Enqueues one kernel; pointers 16-byte aligned. A token's result does not
// depend on other tokens. cudaErrorInvalidValue for sizes that
// SplitGemmSupports refuses.
cudaError_t LaunchSplitGemm(const SplitGemmArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
