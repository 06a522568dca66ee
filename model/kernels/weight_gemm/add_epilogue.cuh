// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/arch/barrier.h>

#include "model/kernels/vector.cuh"
#include "model/kernels/weight_gemm/epilogue.cuh"
#include "model/kernels/weight_gemm/turn.cuh"

namespace piserve::kernels::weight_gemm {

// What is there plus the sums of a tile of 256 weight rows by kTokens tokens;
// where asked for, also what the RMSNorm behind wants of the result: times its
// gain, and the squares summed over those rows.
template <int kTokens>
struct AddEpilogue : EpilogueBase {
  static constexpr int kRows = 256, kWarps = 8, kHalves = 2;
  static constexpr int kTurns = kTokens / kTurned;
  static constexpr int kAhead = 3;  // turns whose chunks are on their way
  static_assert(kTokens % kTurned == 0);

  struct Arguments {
    Element* y = nullptr;         // [tokens, out]
    const float* gain = nullptr;  // [out]; null: nothing for a norm
    Element* gained = nullptr;    // [tokens, out]
    float* squares = nullptr;     // [out / 256, tokens]
    int tokens = 0;
    int out = 0;  // a multiple of 256
  };
  using Params = Arguments;
  // A warp's: what was there, and what shall be.
  struct SharedStorage {
    TurnPlace before[kWarps], after[kWarps];
    float squares[kHalves * kWarps][kTokens];  // over 16 rows each
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
                  kHalves * kTokens / 2);
    const Place at(thread);
    const TurnLane lane(at.lane);
    auto& shared = *reinterpret_cast<SharedStorage*>(memory);
    TurnPlace& before = shared.before[at.warp];
    TurnPlace& after = shared.after[at.warp];
    const int token = cute::get<1>(tile) * kTokens + lane.token;
    const int stride = kTurned * params.out;
    const int row = cute::get<0>(tile) * kRows + at.warp * 16 + lane.first_row;
    const int first = token * params.out + row;
    const bool normed = params.gain != nullptr;
#pragma unroll
    for (int h = 0; h < kHalves; ++h) {
      constexpr int kHalf = kRows / kHalves;
      int to = first + h * kHalf;
      uint4 there[kAhead];
      const auto load = [&](int turn, int done) {
        there[turn % kAhead] =
            token + turn * kTurned < params.tokens
                ? Chunk(params.y + to + (turn - done) * stride)
                : uint4{0, 0, 0, 0};
      };
#pragma unroll
      for (int turn = 0; turn < kAhead; ++turn) load(turn, 0);
#pragma unroll
      for (int turn = 0; turn < kTurns; ++turn) {
        before.chunks[lane.chunk] = there[turn % kAhead];
        if (turn + kAhead < kTurns) load(turn + kAhead, turn);
        __syncwarp();
        TurnedWords words = lane.Load(before);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = TurnedAccumulator<kTokens>(h, turn, k);
          words.word[k] =
              Add(words.word[k], accumulators(i), accumulators(i + 1));
        }
        lane.Store(words, after);
        __syncwarp();
        const uint4 sum = after.chunks[lane.chunk];
        const bool inside = token + turn * kTurned < params.tokens;
        if (inside) Chunk(params.y + to) = sum;
        if (normed) {
          const Gained gained(sum, params.gain + row + h * kHalf);
          if (inside) Chunk(params.gained + to) = gained.eight;
          const float square =
              gained.square + __shfl_xor_sync(~0u, gained.square, 1);
          if (lane.first_row == 0) {
            shared.squares[h * kWarps + at.warp][turn * kTurned + lane.token] =
                square;
          }
        }
        to += stride;
      }
    }
    if (normed) StoreSquares(shared, tile, thread);
  }

  Params params;

 private:
  // Eight values times their gains, and their squares' sum.
  struct Gained {
    uint4 eight;
    float square = 0;
    CUTLASS_DEVICE Gained(const uint4& values, const float* gains) {
      float v[8], gain[8];
      Unpack(values, v);
      LoadAgain(gains, gain);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        square = fmaf(v[i], v[i], square);
        v[i] *= gain[i];
      }
      eight = Pack(v);
    }
  };

  // From the L1 cache: registers are too few to keep them.
  CUTLASS_DEVICE static void LoadAgain(const float* gains, float (&gain)[8]) {
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(gain[0]), "=f"(gain[1]), "=f"(gain[2]), "=f"(gain[3])
                 : "l"(gains));
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(gain[4]), "=f"(gain[5]), "=f"(gain[6]), "=f"(gain[7])
                 : "l"(gains + 4));
  }

  CUTLASS_DEVICE static uint4& Chunk(Element* at) {
    return *reinterpret_cast<uint4*>(at);
  }

  template <typename TileCoord>
  CUTLASS_DEVICE void StoreSquares(const SharedStorage& shared, TileCoord tile,
                                   int thread) const {
    AllWarps();  // have stored theirs
    const int token = cute::get<1>(tile) * kTokens + thread;
    if (thread < kTokens && token < params.tokens) {
      float sum = 0;
#pragma unroll
      for (const auto& rows : shared.squares) sum += rows[thread];
      params.squares[std::int64_t{cute::get<0>(tile)} * params.tokens + token] =
          sum;
    }
    AllWarps();  // before the next tile's are stored
  }
  CUTLASS_DEVICE static void AllWarps() {
    cutlass::arch::NamedBarrier::sync(
        kWarps * 32, cutlass::arch::ReservedNamedBarriers::EpilogueBarrier);
  }

  CUTLASS_DEVICE static std::uint32_t Add(std::uint32_t pair, float low,
                                          float high) {
    const float2 there =
        __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(pair));
    return PackPair(there.x + low, there.y + high);
  }
};

}  // namespace piserve::kernels::weight_gemm
