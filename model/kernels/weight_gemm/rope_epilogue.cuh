// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/arch/grid_dependency_control.h>
#include <cutlass/fast_math.h>

#include "model/kernels/weight_gemm/epilogue.cuh"
#include "model/kernels/weight_gemm/geglu_epilogue.cuh"  // Pack, Transpose
#include "model/kernels/weight_gemm/rope_gemm.h"

namespace piserve::kernels::weight_gemm {

// Rotates half a head, 64 pairs of dimensions, of kTokens tokens and stores it:
// queries to qkv, keys and values to the cache; values are not rotated.
template <int kTokens>
struct RopeEpilogue : EpilogueBase {
  struct Arguments {
    RopeScatterArgs to;
    cutlass::FastDivmod seq;  // of to.seq
  };
  using Params = Arguments;

  static constexpr int kHead = kRopePairHead, kPairs = kHead / 2;
  static constexpr int kGroups = kTokens / 8;
  // Groups of tokens whose cosines are loaded at once: latencies overlap.
  static constexpr int kAtOnce = kGroups / 2;
  static_assert(kGroups % kAtOnce == 0);

  CUTLASS_HOST_DEVICE explicit RopeEpilogue(const Params& params,
                                            const SharedStorage& = {})
      : params(params) {}

  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char*) {
    static_assert(decltype(cute::size(accumulators))::value == 4 * kGroups);
    // The loads of these accumulators waited, so this returns at once: what the
    // work before wrote is visible to this thread too (start, row_base).
    cutlass::arch::wait_on_dependent_grids();
    const Place at(thread);
    const int head = cute::get<0>(tile) / 2;
    const int pairs = cute::get<0>(tile) % 2 * (kPairs / 2) + at.warp * 8;
    const int first = cute::get<1>(tile) * kTokens;
    const bool query = head < params.to.heads;
    const std::int64_t pitch = query ? (params.to.heads + 2) * kHead : kHead;
    Element* const base = Base(head) + pairs + at.lane % 4 * 2;
#pragma unroll
    for (int block = 0; block < kGroups; block += kAtOnce) {
      const int token = first + block * 8;
      float2 turns[2 * kAtOnce];
      LoadTurns(token + at.lane % 4 * 2, head, pairs + at.lane / 4, turns);
      int places[kAtOnce];
      FindPlaces(token + at.lane / 4, query, places);
#pragma unroll
      for (int g = 0; g < kAtOnce; ++g) {
        const int i = 4 * (block + g);
        const float2 a = turns[2 * g], b = turns[2 * g + 1];
        const std::uint32_t low = Transpose(
            Pack(Turned(accumulators(i), a.x, accumulators(i + 2), -a.y),
                 Turned(accumulators(i + 1), b.x, accumulators(i + 3), -b.y)));
        const std::uint32_t high = Transpose(
            Pack(Turned(accumulators(i + 2), a.x, accumulators(i), a.y),
                 Turned(accumulators(i + 3), b.x, accumulators(i + 1), b.y)));
        if (token + g * 8 + at.lane / 4 >= params.to.rows * params.to.seq) {
          continue;
        }
        Element* const to = base + places[g] * pitch;
        *reinterpret_cast<std::uint32_t*>(to) = low;
        *reinterpret_cast<std::uint32_t*>(to + kPairs) = high;
      }
    }
  }

  Params params;

 private:
  // x c + y s, rounded alike wherever in the tile it is computed.
  CUTLASS_DEVICE static float Turned(float x, float c, float y, float s) {
    return __fmaf_rn(x, c, __fmul_rn(y, s));
  }

  // Each token's row and position. A token behind the last is taken for it.
  // Free of branches between the loads of `start`, which so overlap.
  template <int kCount>
  CUTLASS_DEVICE void Locate(int (&tokens)[kCount],
                             int (&positions)[kCount]) const {
    const RopeScatterArgs& to = params.to;
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int token = min(tokens[i], to.rows * to.seq - 1);
      params.seq(tokens[i], positions[i], token);
      positions[i] += to.start_offset;
    }
    if (to.start == nullptr) return;
#pragma unroll
    for (int i = 0; i < kCount; ++i) positions[i] += to.start[tokens[i]];
  }

  // (cos, sin) of one pair and a thread's tokens: `token` and the next one of
  // each group. Of values: no rotation.
  CUTLASS_DEVICE void LoadTurns(int token, int head, int pair,
                                float2 (&turns)[2 * kAtOnce]) const {
#pragma unroll
    for (float2& turn : turns) turn = make_float2(1, 0);
    if (head > params.to.heads) return;
    int rows[2 * kAtOnce], positions[2 * kAtOnce];
#pragma unroll
    for (int i = 0; i < 2 * kAtOnce; ++i) rows[i] = token + i / 2 * 8 + i % 2;
    Locate(rows, positions);
#pragma unroll
    for (int i = 0; i < 2 * kAtOnce; ++i) {
      turns[i] = __ldg(params.to.table + positions[i] * kPairs + pair);
    }
  }

  // Where a thread's token of each group goes: which row of qkv, or of the
  // caches from row_base on.
  CUTLASS_DEVICE void FindPlaces(int token, bool query,
                                 int (&places)[kAtOnce]) const {
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) places[g] = token + g * 8;
    if (query) return;
    int positions[kAtOnce];
    Locate(places, positions);
#pragma unroll
    for (int g = 0; g < kAtOnce; ++g) {
      places[g] = places[g] * params.to.cache_len + positions[g];
    }
  }

  // The head's place in front of its first token.
  CUTLASS_DEVICE Element* Base(int head) const {
    const RopeScatterArgs& to = params.to;
    if (head < to.heads) {
      return reinterpret_cast<Element*>(to.qkv) + head * kHead;
    }
    const int row = to.row_base == nullptr ? 0 : *to.row_base;
    return reinterpret_cast<Element*>(head == to.heads ? to.cache_k
                                                       : to.cache_v) +
           std::int64_t{row} * to.cache_len * kHead;
  }
};

}  // namespace piserve::kernels::weight_gemm
