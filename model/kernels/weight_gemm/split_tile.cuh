// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/split_epilogue.cuh"
#include "model/kernels/weight_gemm/tile.cuh"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels::weight_gemm {

template <int kTokens>
cudaError_t LaunchSplit(const SplitGemmArgs& args, int processors,
                        cudaStream_t stream) {
  using Epilogue = SplitEpilogue<kTokens>;
  return LaunchTile<TileKernel<128, kTokens, Epilogue>>(
      {.w = args.w,
       .x = args.x,
       .rows = args.out,
       .tokens = args.tokens,
       .in = args.in,
       .parts = kSplitGemmParts},
      typename Epilogue::Arguments{args.parts, args.tokens, args.out},
      processors, stream);
}

}  // namespace piserve::kernels::weight_gemm
