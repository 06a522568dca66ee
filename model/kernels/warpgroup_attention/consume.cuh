// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>

#include "model/kernels/warpgroup_attention/ring.cuh"
#include "model/kernels/warpgroup_attention/work.cuh"

// A consumer warpgroup: scores in registers by wgmma from shared memory,
// softmax there, and p, never leaving registers, times v by wgmma. The next
// tile's scores are asked for before p v, so that the softmax runs beside it.
namespace piserve::kernels::warpgroup_attention {

// How far (in powers of two) a row's maximum may rise before what was summed
// moves to the new one: any reference within reach of FP32's exponents will do,
// and most tiles then change nothing.
inline constexpr float kReach = 8;

// A consumer thread: fragment rows `row` and `row + 8` of its warpgroup's 64.
struct Consumer {
  float out[128];
  // What the row's scores are taken against, in units of log 2.
  float maximum[2];
  float sum[2];
  int limit[2];  // keys from here on are hidden from the row
  // The same for a warp: from a shuffle the compiler knows it, and keeps what
  // follows from it in uniform registers.
  int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0) - 1;
  int lane = threadIdx.x % 32;
  int row = threadIdx.x % kGroup / 32 * 16 + lane / 4;
};

// A warpgroup's queries: the first kHeldColumns in registers, which saves the
// bandwidth of shared memory, the others there.
struct Queries {
  std::uint64_t tile;
  std::uint32_t held[kHeldColumns / 16 + 1][4];  // one more: there may be none
};

__device__ inline void LoadQueries(const char* queries, const Consumer& c,
                                   Queries& q) {
  q.tile = RowsTile(SharedAddress(queries));
  const int row = threadIdx.x % kGroup / 32 * 16 + c.lane % 16;
#pragma unroll
  for (int i = 0; i < kHeldColumns / 16; ++i) {
    LoadMatrix4(queries + SwizzledOffset(kGroupRows, row, i * 2 + c.lane / 16),
                q.held[i]);
  }
}

__device__ inline void AskForScores(const Queries& q, std::uint64_t k,
                                    float (&s)[32]) {
  WgmmaFence();
#pragma unroll
  for (int d = 0; d < kDim; d += 16) {
    const std::uint64_t keys = AtColumn(k, kKeys, d);
    if (d < kHeldColumns) {
      Wgmma64x64(s, q.held[d / 16], keys, d != 0);
    } else {
      Wgmma64x64(s, AtColumn(q.tile, kGroupRows, d), keys, d != 0);
    }
  }
  WgmmaCommit();
}

// out += p v.
__device__ inline void AskForValues(Consumer& c,
                                    const std::uint32_t (&p)[kKeys / 16][4],
                                    std::uint64_t v) {
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    Wgmma64x256(c.out, p[k], AtRow(v, k * 16));
  }
  WgmmaCommit();
}

// The same of a tile that has only so many keys.
__device__ inline void AskForLastValues(Consumer& c,
                                        const std::uint32_t (&p)[kKeys / 16][4],
                                        std::uint64_t v, int keys) {
#pragma unroll
  for (int k = 0; k < kKeys / 16; ++k) {
    if (k * 16 >= keys) break;
    WgmmaFence();
    Wgmma64x256(c.out, p[k], AtRow(v, k * 16));
  }
  WgmmaFence();
  WgmmaCommit();
}

// A thread's 32 scores are 16 of each of its two rows, in pairs.
__device__ constexpr int ScoreAt(int r, int i) {
  return i / 2 * 4 + 2 * r + i % 2;
}

// The tile's largest score of a row, hidden ones taken out.
__device__ inline float LargestScore(const Consumer& c, float (&s)[32],
                                     int first, int r) {
  const int key = first + c.lane % 4 * 2;
  if (first + kKeys > c.limit[r]) {
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (key + i / 2 * 8 + i % 2 >= c.limit[r]) s[ScoreAt(r, i)] = -INFINITY;
    }
  }
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < 16; ++i) largest = fmaxf(largest, s[ScoreAt(r, i)]);
  largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, 1));
  return fmaxf(largest, __shfl_xor_sync(~0u, largest, 2));
}

// Scores to weights in place. What was summed before moves to the maximum by
// `factor`; here the sums do.
__device__ inline void Softmax(Consumer& c, float (&s)[32], float scale,
                               int first, float (&factor)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float largest = LargestScore(c, s, first, r) * scale;
    const float raised =
        largest > c.maximum[r] + kReach ? largest : c.maximum[r];
    // No key of this row yet: keep zeros as zeros.
    const float shift = raised == -INFINITY ? 0 : raised;
    factor[r] = Exp2(c.maximum[r] - shift);
    c.maximum[r] = raised;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      float& score = s[ScoreAt(r, i)];
      score = Exp2(score * scale - shift);
      sum += score;
    }
    c.sum[r] = c.sum[r] * factor[r] + sum;
  }
}

__device__ inline void Rescale(Consumer& c, const float (&factor)[2]) {
  if (!__any_sync(~0u, factor[0] != 1 || factor[1] != 1)) return;
#pragma unroll
  for (int i = 0; i < 128; ++i) c.out[i] *= factor[i / 2 % 2];
}

// A fragment of two neighbouring score tiles is one of p.
__device__ inline void Pack(const float (&s)[32],
                            std::uint32_t (&p)[kKeys / 16][4]) {
#pragma unroll
  for (int i = 0; i < kKeys / 4; ++i) {
    p[i / 4][i % 4] = PackPair(s[2 * i], s[2 * i + 1]);
  }
}

// Makes zeros of a tile's keys from `from` to `to`, by so many threads. What a
// tile of v holds past the row's keys may be NaN, which a weight of zero does
// not undo.
__device__ inline void ClearKeys(char* tile, int from, int to, int thread,
                                 int threads) {
  constexpr int kPieces = kDim / 8;
#pragma unroll 1
  for (int i = from * kPieces + thread; i < to * kPieces; i += threads) {
    *reinterpret_cast<uint4*>(
        tile + SwizzledOffset(kKeys, i / kPieces, i % kPieces)) = {};
  }
  FenceForWgmma();
}

// Of the warpgroup's queries, from `query` on.
__device__ inline void Clear(const Params& p, const Work& w, int query,
                             Consumer& c) {
#pragma unroll
  for (float& out : c.out) out = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    c.maximum[r] = -INFINITY;
    c.sum[r] = 0;
    const bool first_token = query + c.row + 8 * r < p.args.heads;
    c.limit[r] = first_token ? min(w.visible_first, w.end) : w.end;
  }
}

// A wait for wgmma depends on no register, and ptxas moves it up to the last
// branch: before the softmax that is to run beside p v. So here is a branch
// that needs the softmax's sum, which is never below 0.
__device__ inline void BranchOn(float sum) {
  asm volatile(
      "{\n.reg .pred never;\n"
      "setp.lt.f32 never, %0, 0f00000000;\n"
      "@never nanosleep.u32 0;\n}\n" ::"f"(sum)
      : "memory");
}

// Weights of the first tile, then tile by tile: ask for the next scores and for
// the old weights times v, and turn those scores to weights meanwhile. At the
// end a row's sums of weights and of weighted values. `take_last` is asked for
// the place of the last tile of v, without what is no key's.
template <int kPeers, typename Shared, typename TakeLast>
__device__ void ConsumeTiles(const Params& p, const Run& run, Shared& shared,
                             RingPlace<Shared::kSlots>& place, Consumer& c,
                             TakeLast take_last) {
  auto& ring = shared.Ring(c.group);
  const std::uint32_t first_tile = SharedAddress(shared.Tiles(c.group));
  const auto keys_of = [&](int slot) {
    return RowsTile(first_tile + slot * kTileBytes);
  };
  const auto values_of = [&](int slot) {
    return ColumnsTile(first_tile + slot * kTileBytes, kKeys);
  };
  const int tiles = run.Tiles();
  Queries q;
  float s[32], factor[2];
  std::uint32_t weights[kKeys / 16][4];
  LoadQueries(shared.Queries(c.group), c, q);
  int keys = Take(ring, place);
  AskForScores(q, keys_of(keys), s);
  WgmmaWait();
  HoldRegisters(s);
  Release<kPeers>(ring, keys, c.lane);
  Softmax(c, s, p.scale, run.first, factor);
  Pack(s, weights);
  for (int tile = 1; tile < tiles; ++tile) {
    keys = Take(ring, place);
    AskForScores(q, keys_of(keys), s);
    const int values = Take(ring, place);
    AskForValues(c, weights, values_of(values));
    WgmmaWaitAllButLast();
    HoldRegisters(s);
    Release<kPeers>(ring, keys, c.lane);
    Softmax(c, s, p.scale, run.Key(tile), factor);
    HoldRegisters(s);
    BranchOn(c.sum[0] + c.sum[1]);
    WgmmaWait();
    HoldRegisters(c.out);
    Release<kPeers>(ring, values, c.lane);
    Rescale(c, factor);
    Pack(s, weights);
  }
  const int values = take_last();
  AskForLastValues(c, weights, values_of(values), run.LastKeys());
  WgmmaWait();
  HoldRegisters(c.out);
  Release<kPeers>(ring, values, c.lane);
#pragma unroll
  for (float& sum : c.sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
  }
}

}  // namespace piserve::kernels::warpgroup_attention
