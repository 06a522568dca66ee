// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/vision_attention/fill.cuh"
#include "model/kernels/vision_attention/wgmma.cuh"

// A warpgroup's task: scores in registers by wgmma, softmax there, and the
// weights, never leaving registers, times v.
namespace piserve::kernels::vision_attention {

// Starts s = q k, [64 queries][256 keys]; the piece is summed with zeros.
__device__ inline void StartScores(const Queries& queries, const Keys& keys,
                                   const char* zeros, float (&s)[128]) {
  const std::uint64_t q = RowsTile(SharedAddress(queries.tile));
  const std::uint64_t k = RowsTile(SharedAddress(keys.tile));
  const std::uint32_t zero = SharedAddress(zeros);
  const std::uint32_t q_piece = SharedAddress(queries.piece);
  const std::uint32_t k_piece = SharedAddress(keys.piece);
  WgmmaFence();
#pragma unroll
  for (int column = 0; column < kColumns; column += 16) {
    Multiply64x256(s, AtColumn(q, 0, column), AtColumn(k, 0, column),
                   column != 0);
  }
  Multiply64x256(s, TwoPieces(q_piece, zero - q_piece),
                 TwoPieces(k_piece, zero - k_piece), true);
  WgmmaCommit();
}

// Of a thread's 128 scores those of row r of its two: 64, in pairs.
__device__ constexpr int ScoreAt(int r, int i) {
  return i / 2 * 4 + 2 * r + i % 2;
}

// Of a whole row, from its four threads.
__device__ inline float Maximum(const float (&s)[128], int r) {
  float m[2] = {s[ScoreAt(r, 0)], s[ScoreAt(r, 1)]};
#pragma unroll
  for (int i = 2; i < 64; ++i) m[i % 2] = fmaxf(m[i % 2], s[ScoreAt(r, i)]);
  float maximum = fmaxf(m[0], m[1]);
  maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 1));
  return fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 2));
}

// Weights of kCount times 16 keys from kFirst * 16 on, bf16. A fragment of two
// neighbouring score tiles is one of p.
template <int kFirst, int kCount>
__device__ void Weigh(const float (&s)[128], float scale,
                      const float (&shift)[2], std::uint32_t (&p)[kCount][4]) {
#pragma unroll
  for (int i = 0; i < kCount * 4; ++i) {
    const int at = kFirst * 8 + 2 * i, r = i % 2;
    p[i / 4][i % 4] = PackPair(Exp2(s[at] * scale - shift[r]),
                               Exp2(s[at + 1] * scale - shift[r]));
  }
}

// A thread's part of p v, FP32: the columns of the tile, those of the piece,
// and from `last[4]` on p's sum, which ones beside the piece make.
struct Output {
  float tile[32], last[8];
};

// Starts out = p v (+ out) of those keys.
template <int kFirst, int kCount>
__device__ void StartValues(const Keys& v, const char* ones,
                            const std::uint32_t (&p)[kCount][4], Output& out) {
  const std::uint64_t tile = ColumnsTile(SharedAddress(v.tile), kTokens);
  const std::uint32_t piece = SharedAddress(v.piece);
  const std::uint32_t one = SharedAddress(ones);
  WgmmaFence();
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const int k = (kFirst + i) * 16;
    const std::uint32_t at = piece + k * 16;
    Multiply64x64(out.tile, p[i], AtRow(tile, k), k != 0);
    Multiply64x16(out.last, p[i], PiecesRows(at, one - at), k != 0);
  }
  WgmmaCommit();
}

template <int kFirst, int kCount>
__device__ void WeighAndStart(const float (&s)[128], float scale,
                              const float (&shift)[2], const Keys& v,
                              const char* ones, Output& out) {
  std::uint32_t p[kCount][4];
  Weigh<kFirst>(s, scale, shift, p);
  StartValues<kFirst>(v, ones, p, out);
}

// Keeps the compiler from working ahead across this, which would cost
// registers: what comes back is x, but through shared memory's zeros behind a
// barrier of the warpgroup.
__device__ inline void HoldBack(int group, const char* zeros, float (&x)[2]) {
  SyncGroup(group);
  float zero;
  asm volatile("ld.volatile.shared.f32 %0, [%1];\n"
               : "=f"(zero)
               : "r"(SharedAddress(zeros))
               : "memory");
  x[0] += zero;
  x[1] += zero;
}

// Softmax and out = p v. Products of some keys run beside the exponentials of
// the next. On the way the warpgroup meets: all of it is past its scores.
__device__ inline void Attend(const float (&s)[128], float scale, int group,
                              const Keys& v, const Shared& shared,
                              Output& out) {
  float shift[2] = {Maximum(s, 0) * scale, Maximum(s, 1) * scale};
  WeighAndStart<0, 8>(s, scale, shift, v, shared.ones, out);
  HoldBack(group, shared.zeros, shift);
  WeighAndStart<8, 4>(s, scale, shift, v, shared.ones, out);
  HoldBack(group, shared.zeros, shift);
  WeighAndStart<12, 4>(s, scale, shift, v, shared.ones, out);
  WgmmaWait();
  HoldRegisters(out.tile);
  HoldRegisters(out.last);
}

// A warp's 16 rows of the result to a slot that no one reads any more. Rows of
// 144 bytes: eight of them meet every bank once.
__device__ inline void PlaceResult(const Output& out, Queries& slot) {
  const float inverse[2] = {1 / out.last[4], 1 / out.last[6]};
  const int lane = threadIdx.x % 32, warp = threadIdx.x % kGroup / 32;
  const auto pair = [&](const float* c, int r) {
    return PackPair(c[2 * r] * inverse[r], c[2 * r + 1] * inverse[r]);
  };
  char* row = slot.tile + (warp * 16 + lane % 16) * kTokenBytes;
#pragma unroll
  for (int n = 0; n < kColumns / 8; n += 2) {
    const float *left = out.tile + n * 4, *right = left + 4;
    StoreMatrix4(row + (n + lane / 16) * 16, {pair(left, 0), pair(left, 1),
                                              pair(right, 0), pair(right, 1)});
  }
  StoreMatrix2(row + kColumns * 2, {pair(out.last, 0), pair(out.last, 1)});
  FenceForWgmma();  // and for the copy back
}

__device__ inline void RunTask(const Maps& maps, const Work& work, int task,
                               int group, float scale, Shared& shared) {
  const int head = work.HeadOf(task), stage = head % kStages;
  const int parity = head / kStages % 2;
  const bool leader = threadIdx.x % kGroup == 0;
  Queries& slot = shared.queries[task % kSlots];
  float s[128];
  // Keys first: that they are there means that the task which had the slot
  // before, two heads ago, is past its queries, and their phase over.
  BarrierWait(&shared.keys_full[stage], parity);
  BarrierWait(&shared.queries_full[task % kSlots], task / kSlots % 2);
  StartScores(slot, shared.keys[stage], shared.zeros, s);
  if (leader && task >= kGroups) {
    WaitForCopiesRead();  // from the slot of this warpgroup's task before
    FillQueries(maps, work, task - kGroups + kSlots, shared);
  }
  __syncwarp();
  WgmmaWait();
  HoldRegisters(s);
  LeaveKeys(maps, work, head, shared);

  BarrierWait(&shared.values_full[stage], parity);
  Output out;
  Attend(s, scale, group, shared.values[stage], shared, out);
  LeaveValues(maps, work, head, shared);
  PlaceResult(out, slot);
  SyncGroup(group);
  if (leader) {
    const Place to = work.QueriesOf(task);
    CopyBoxBack(maps.result, slot.tile, 0, to.head, to.token);
  }
  __syncwarp();
}

}  // namespace piserve::kernels::vision_attention
