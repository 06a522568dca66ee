// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/vector.cuh"
#include "model/kernels/weight_gemm/epilogue.cuh"
#include "model/kernels/weight_gemm/turn.cuh"

namespace piserve::kernels::weight_gemm {

// What is there plus the sums of a tile of 256 weight rows by kTokens tokens.
template <int kTokens>
struct AddEpilogue : EpilogueBase {
  static constexpr int kRows = 256, kWarps = 8, kHalves = 2;
  static constexpr int kGroups = kTokens / 8;
  static constexpr int kTurns = kTokens / kTurned;
  static constexpr int kAhead = 3;  // turns whose chunks are on their way
  static_assert(kTokens % kTurned == 0);

  struct Arguments {
    Element* y = nullptr;  // [tokens, out]
    int tokens = 0;
    int out = 0;  // a multiple of 256
  };
  using Params = Arguments;
  // A warp's: what was there, and what shall be.
  struct SharedStorage {
    TurnPlace before[kWarps], after[kWarps];
  };
  using TensorStorage = SharedStorage;

  CUTLASS_HOST_DEVICE explicit AddEpilogue(const Params& params)
      : params(params) {}

  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char* memory) {
    static_assert(decltype(cute::size(accumulators))::value ==
                  4 * kHalves * kGroups);
    const Place at(thread);
    const TurnLane lane(at.lane);
    auto& shared = *reinterpret_cast<SharedStorage*>(memory);
    TurnPlace& before = shared.before[at.warp];
    TurnPlace& after = shared.after[at.warp];
    const int token = cute::get<1>(tile) * kTokens + lane.token;
    const std::int64_t stride = std::int64_t{kTurned} * params.out;
    Element* y = params.y + std::int64_t{token} * params.out +
                 cute::get<0>(tile) * kRows + at.warp * 16 + lane.first_row;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      auto* from = y + h * (kRows / kHalves);
      auto* to = from;
      uint4 there[kAhead];
      const auto load = [&](int turn) {
        there[turn % kAhead] = token + turn * kTurned < params.tokens
                                   ? *reinterpret_cast<const uint4*>(from)
                                   : uint4{0, 0, 0, 0};
        from += stride;
      };
#pragma unroll
      for (int turn = 0; turn < kAhead; ++turn) load(turn);
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        before.chunks[lane.chunk] = there[turn % kAhead];
        if (turn + kAhead < kTurns) load(turn + kAhead);
        __syncwarp();
        TurnedWords words = lane.Load(before);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = 4 * (h * kGroups + turn * 2 + k / 2) + k % 2 * 2;
          words.word[k] =
              Add(words.word[k], accumulators(i), accumulators(i + 1));
        }
        lane.Store(words, after);
        __syncwarp();
        if (token + turn * kTurned < params.tokens) {
          *reinterpret_cast<uint4*>(to) = after.chunks[lane.chunk];
        }
        to += stride;
      }
    }
  }

  Params params;

 private:
  CUTLASS_DEVICE static std::uint32_t Add(std::uint32_t pair, float low,
                                          float high) {
    const float2 there =
        __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
    return PackPair(there.x + low, there.y + high);
  }
};

}  // namespace piserve::kernels::weight_gemm
