// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/rope_epilogue.cuh"
#include "model/kernels/weight_gemm/rope_tile.h"
#include "model/kernels/weight_gemm/tile.cuh"

namespace piserve::kernels::weight_gemm {

template <int kTokens>
cudaError_t LaunchRope(const RopeGemmArgs& args, int processors,
                       cudaStream_t stream) {
  using Epilogue = RopeEpilogue<kTokens>;
  return LaunchTile<TileKernel<kRopePairHead / 2, kTokens, Epilogue>>(
      {.w = args.w,
       .x = args.x,
       .rows = (args.to.heads + 2) * kRopePairHead,
       .tokens = args.to.rows * args.to.seq,
       .in = args.in},
      typename Epilogue::Arguments{args.to, cutlass::FastDivmod(args.to.seq)},
      processors, stream);
}

}  // namespace piserve::kernels::weight_gemm
