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
  int limit[2];    // keys from here on are hidden from the row
  Place place;     // in the ring of tiles
  int parity = 1;  // of an item's barriers
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

__device__ inline void LoadQueries(Shared& shared, Consumer& c, Queries& q) {
  q.tile = RowsTile(SharedAddress(shared.q[0]) + c.group * kQBytes);
  const int row = threadIdx.x % kGroup / 32 * 16 + c.lane % 16;
#pragma unroll
  for (int i = 0; i < kHeldColumns / 16; ++i) {
    LoadMatrix4(shared.q[c.group] +
                    SwizzledOffset(kGroupRows, row, i * 2 + c.lane / 16),
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

__device__ inline std::uint64_t KeysTile(const Shared& shared, int slot) {
  return RowsTile(SharedAddress(shared.tiles[0]) + slot * kTileBytes);
}
__device__ inline std::uint64_t ValuesTile(const Shared& shared, int slot) {
  return ColumnsTile(SharedAddress(shared.tiles[0]) + slot * kTileBytes, kKeys);
}

__device__ inline void FreeQueries(Shared& shared, const Consumer& c) {
  __syncwarp();
  if (c.lane == 0) BarrierArrive(&shared.empty_q[c.group]);
}

// The last tile of v, without what is no key's.
__device__ inline int TakeLast(Shared& shared, Consumer& c) {
  const int slot = Take(shared, c.place);
  BarrierWait(&shared.clean_last, c.parity);
  return slot;
}

// The part of a warpgroup none of whose queries matter.
template <int kPeers>
__device__ void Drain(const Work& w, Shared& shared, Consumer& c) {
  FreeQueries(shared, c);
  const int count = 2 * w.Tiles();
#pragma unroll 1
  for (int i = 0; i < count - 1; ++i) {
    Release<kPeers>(shared, Take(shared, c.place), c.lane);
  }
  Release<kPeers>(shared, TakeLast(shared, c), c.lane);
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

__device__ inline void SetLimits(const Params& p, const Work& w, Consumer& c) {
  const int first_query = w.first_query + c.group * kGroupRows + c.row;
  for (int r = 0; r < 2; ++r) {
    const bool first_token = first_query + 8 * r < p.args.heads;
    c.limit[r] = first_token ? min(w.visible_first, w.end) : w.end;
  }
}

// Weights of the first tile, then tile by tile: ask for the next scores and for
// the old weights times v, and turn those scores to weights meanwhile.
template <int kPeers>
__device__ void ConsumeTiles(const Params& p, const Work& w, Shared& shared,
                             Consumer& c) {
  const int tiles = w.Tiles();
  Queries q;
  float s[32], factor[2];
  std::uint32_t weights[kKeys / 16][4];
  LoadQueries(shared, c, q);
  int keys = Take(shared, c.place);
  AskForScores(q, KeysTile(shared, keys), s);
  WgmmaWait();
  HoldRegisters(s);
  Release<kPeers>(shared, keys, c.lane);
  Softmax(c, s, p.scale, w.begin, factor);
  Pack(s, weights);
  for (int tile = 1; tile < tiles; ++tile) {
    keys = Take(shared, c.place);
    AskForScores(q, KeysTile(shared, keys), s);
    const int values = Take(shared, c.place);
    AskForValues(c, weights, ValuesTile(shared, values));
    WgmmaWaitAllButLast();
    HoldRegisters(s);
    Release<kPeers>(shared, keys, c.lane);
    Softmax(c, s, p.scale, w.begin + tile * kKeys, factor);
    HoldRegisters(s);
    BranchOn(c.sum[0] + c.sum[1]);
    WgmmaWait();
    HoldRegisters(c.out);
    Release<kPeers>(shared, values, c.lane);
    Rescale(c, factor);
    Pack(s, weights);
  }
  FreeQueries(shared, c);
  const int values = TakeLast(shared, c);
  AskForLastValues(c, weights, ValuesTile(shared, values),
                   w.end - w.begin - (tiles - 1) * kKeys);
  WgmmaWait();
  HoldRegisters(c.out);
  Release<kPeers>(shared, values, c.lane);
}

// An item that matters: a row's sums of weights and of weighted values.
template <int kPeers>
__device__ void Consume(const Params& p, const Work& w, Shared& shared,
                        Consumer& c) {
#pragma unroll
  for (float& out : c.out) out = 0;
#pragma unroll
  for (int r = 0; r < 2; ++r) c.maximum[r] = -INFINITY, c.sum[r] = 0;
  if (w.Tiles() == 0) return;
  c.parity ^= 1;
  if (c.lane == 0) BarrierArrive(&shared.clean_last);
  BarrierWait(&shared.full_q[c.group], c.parity);
  if (!w.Needs(c.group)) return Drain<kPeers>(w, shared, c);
  SetLimits(p, w, c);
  ConsumeTiles<kPeers>(p, w, shared, c);
#pragma unroll
  for (float& sum : c.sum) {
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
  }
}

}  // namespace piserve::kernels::warpgroup_attention
