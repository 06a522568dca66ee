// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/gelu.cuh"
#include "model/kernels/vector.cuh"
#include "model/kernels/weight_gemm/epilogue.cuh"
#include "model/kernels/weight_gemm/turn.cuh"

namespace piserve::kernels::weight_gemm {

// GELU of what a norm with known moments and a projection make of a tile of
// kRows weight rows by kTokens tokens, which one warpgroup has.
template <int kRows, int kTokens>
struct GeluEpilogue : EpilogueBase {
  static constexpr int kWarps = 4, kHalves = kRows / (kWarps * 16);
  static constexpr int kTurns = kTokens / kTurned;
  static_assert(kTokens % kTurned == 0);

  struct Arguments {
    const float2* moments = nullptr;  // [tokens]
    const float* sums = nullptr;      // [out]
    const Element* bias = nullptr;    // [out]
    Element* y = nullptr;             // [tokens, out]
    int tokens = 0;
    int out = 0;  // a multiple of 8
  };
  using Params = Arguments;
  // A warp's: the warpgroups take turns at it (tile.cuh, ATileEach).
  struct SharedStorage {
    struct {
      TurnPlace places[kHalves];
      float2 moments[kTokens];
    } warp[kWarps];
  };
  using TensorStorage = SharedStorage;

  CUTLASS_HOST_DEVICE explicit GeluEpilogue(const Params& params)
      : params(params) {}

  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char* memory) {
    static_assert(decltype(cute::size(accumulators))::value ==
                  kHalves * kTokens / 2);
    const Place at(thread);
    const TurnLane lane(at.lane);
    auto& [places, known] =
        reinterpret_cast<SharedStorage*>(memory)->warp[at.warp];
    const int first_token = cute::get<1>(tile) * kTokens;
    LoadMoments(first_token, at.lane, known);
    const int first_row = cute::get<0>(tile) * kRows + at.warp * 16;
    RowTerms terms[kHalves][2];
#pragma unroll
    for (int i = 0; i < 2 * kHalves; ++i) {
      terms[i / 2][i % 2] = TermsOf(first_row + i / 2 * (kRows / kHalves) +
                                    i % 2 * 8 + at.lane / 4);
    }
    const int stored = first_row + lane.first_row;
    Element* to =
        params.y + std::int64_t{first_token + lane.token} * params.out + stored;
#pragma unroll
    for (int turn = 0; turn < kTurns; ++turn) {
      float2 moments[4];  // of the words' tokens
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        moments[k] =
            known[turn * kTurned + k / 2 * 8 + at.lane % 4 * 2 + k % 2];
      }
      __syncwarp();  // everyone has read what was there
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        TurnedWords words;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = TurnedAccumulator<kTokens>(h, turn, k);
          const RowTerms& row = terms[h][k % 2];
          words.word[k] = PackPair(
              Finish(accumulators(i), moments[k / 2 * 2], row),
              Finish(accumulators(i + 1), moments[k / 2 * 2 + 1], row));
        }
        lane.Store(words, places[h]);
      }
      __syncwarp();
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const int row = h * (kRows / kHalves);
        if (first_token + turn * kTurned + lane.token < params.tokens &&
            stored + row < params.out) {
          *reinterpret_cast<uint4*>(to + row) = places[h].chunks[lane.chunk];
        }
      }
      to += std::int64_t{kTurned} * params.out;
    }
  }

  Params params;

 private:
  struct RowTerms {
    float sum, bias;
  };

  CUTLASS_DEVICE RowTerms TermsOf(int row) const {
    if (row >= params.out) return {0, 0};
    return {params.sums[row], static_cast<float>(params.bias[row])};
  }
  // All at once: one by one, each would come as late as all of them. Behind the
  // products, hence behind the wait for who writes them.
  CUTLASS_DEVICE void LoadMoments(int first_token, int lane,
                                  float2 (&to)[kTokens]) const {
#pragma unroll
    for (int i = 0; i < kTokens; i += 32) {
      if (i + lane >= kTokens) break;
      to[i + lane] =
          params.moments[min(first_token + i + lane, params.tokens - 1)];
    }
    __syncwarp();
  }
  CUTLASS_DEVICE static float Finish(float product, float2 moments,
                                     RowTerms row) {
    return FastGeluTanh(
        fmaf(moments.x, product, fmaf(moments.y, row.sum, row.bias)));
  }
};

}  // namespace piserve::kernels::weight_gemm
