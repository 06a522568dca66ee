// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/mma.cuh"
#include "model/kernels/weight_gemm/epilogue.cuh"
#include "model/kernels/weight_gemm/gated.cuh"
#include "model/kernels/weight_gemm/geglu_gemm.h"

namespace piserve::kernels::weight_gemm {

// gelu_tanh(gate) * up of a tile of kRows weight rows, all of a packed tile's
// 256 or one half of it, by kTokens tokens: two outputs a half and token.
template <int kRows, int kTokens>
struct GegluEpilogue : EpilogueBase {
  struct Arguments {
    Element* y = nullptr;  // [tokens, out]
    int tokens = 0;
    int out = 0;
  };
  using Params = Arguments;

  CUTLASS_HOST_DEVICE explicit GegluEpilogue(const Params& params,
                                             const SharedStorage& = {})
      : params(params) {}

  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char*) {
    constexpr int kGroups = kTokens / 8, kHalves = kRows / 128;
    constexpr int kTilesOfAPacked = kGegluTileRows / kRows;
    static_assert(decltype(cute::size(accumulators))::value ==
                  4 * kHalves * kGroups);
    const Place at(thread);
    const int weights = cute::get<0>(tile);
    const int output = weights / kTilesOfAPacked * 128 + at.warp * 16 +
                       at.lane % 4 * 4 + weights % kTilesOfAPacked * 2;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      std::uint32_t pairs[kHalves];
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        pairs[h] =
            TransposeMatrix(GatedPair(accumulators, 4 * (h * kGroups + g)));
      }
      const int token = cute::get<1>(tile) * kTokens + g * 8 + at.lane / 4;
      if (token >= params.tokens) continue;
      Element* to = params.y + std::int64_t{token} * params.out + output;
      if constexpr (kHalves == 2) {
        *reinterpret_cast<uint2*>(to) = {pairs[0], pairs[1]};
      } else {
        *reinterpret_cast<std::uint32_t*>(to) = pairs[0];
      }
    }
  }

  Params params;
};

}  // namespace piserve::kernels::weight_gemm
