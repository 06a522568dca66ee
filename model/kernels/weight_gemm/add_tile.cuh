// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/add_epilogue.cuh"
#include "model/kernels/weight_gemm/tile.cuh"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels::weight_gemm {

template <int kTokens>
cudaError_t LaunchAdd(const AddGemmArgs& args, int processors,
                      cudaStream_t stream) {
  using Epilogue = AddEpilogue<kTokens>;
  static_assert(Epilogue::kRows == kAddGemmSquares);
  using Element = typename Epilogue::Element;
  return LaunchTile<TileKernel<Epilogue::kRows, kTokens, Epilogue>>(
      {.w = args.w,
       .x = args.x,
       .rows = args.out,
       .tokens = args.tokens,
       .in = args.in},
      typename Epilogue::Arguments{reinterpret_cast<Element*>(args.y),
                                   args.gain,
                                   reinterpret_cast<Element*>(args.gained),
                                   args.squares, args.tokens, args.out},
      processors, stream);
}

}  // namespace piserve::kernels::weight_gemm
