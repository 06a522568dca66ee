// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/gelu_epilogue.cuh"
#include "model/kernels/weight_gemm/tile.cuh"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels::weight_gemm {

template <int kRows, int kTokens>
cudaError_t LaunchGelu(const GeluGemmArgs& args, int processors,
                       cudaStream_t stream) {
  using Epilogue = GeluEpilogue<kRows, kTokens>;
  using Element = typename Epilogue::Element;
  return LaunchTile<
      TileKernel<kRows, kTokens, Epilogue, ATileEach, Pairs::kOfWeights>>(
      {.w = args.w,
       .x = args.x,
       .rows = args.out,
       .tokens = args.tokens,
       .in = args.in},
      typename Epilogue::Arguments{
          args.moments, args.sums, reinterpret_cast<const Element*>(args.bias),
          reinterpret_cast<Element*>(args.y), args.tokens, args.out},
      processors, stream);
}

}  // namespace piserve::kernels::weight_gemm
