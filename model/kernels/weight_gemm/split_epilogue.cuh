// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/weight_gemm/epilogue.cuh"

namespace piserve::kernels::weight_gemm {

// The FP32 sums of a tile of 128 weight rows by kTokens tokens, of one part of
// the inputs. Eight lanes fill a sector.
template <int kTokens>
struct SplitEpilogue : EpilogueBase {
  struct Arguments {
    float* parts = nullptr;  // [part, tokens, out]
    int tokens = 0;
    int out = 0;
  };
  using Params = Arguments;

  CUTLASS_HOST_DEVICE explicit SplitEpilogue(const Params& params,
                                             const SharedStorage& = {})
      : params(params) {}

  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char*) {
    constexpr int kGroups = kTokens / 8;
    static_assert(decltype(cute::size(accumulators))::value == 4 * kGroups);
    const Place at(thread);
    const int first = cute::get<1>(tile) * kTokens;
    float* to = params.parts +
                (std::int64_t{cute::get<3>(tile)} * params.tokens + first) *
                    params.out +
                cute::get<0>(tile) * 128 + at.warp * 16 + at.lane / 4;
#pragma unroll
    for (int i = 0; i < 4 * kGroups; ++i) {
      const int token = i / 4 * 8 + at.lane % 4 * 2 + i % 2;
      if (first + token >= params.tokens) continue;
      to[std::int64_t{token} * params.out + i / 2 % 2 * 8] = accumulators(i);
    }
  }

  Params params;
};

}  // namespace piserve::kernels::weight_gemm
