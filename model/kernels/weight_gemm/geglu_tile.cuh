// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/geglu_epilogue.cuh"
#include "model/kernels/weight_gemm/tile.cuh"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels::weight_gemm {

template <int kRows, int kTokens>
cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream) {
  using Epilogue = GegluEpilogue<kRows, kTokens>;
  return LaunchTile<TileKernel<kRows, kTokens, Epilogue>>(
      {.w = args.w,
       .x = args.x,
       .rows = 2 * args.out,
       .tokens = args.tokens,
       .in = args.in},
      typename Epilogue::Arguments{
          reinterpret_cast<typename Epilogue::Element*>(args.y), args.tokens,
          args.out},
      processors, stream);
}

}  // namespace piserve::kernels::weight_gemm
