// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/vector.cuh"
#include "model/kernels/weight_gemm/pairs/multiply.cuh"

// What is there plus the sums of a tile; where asked for, also what the RMSNorm
// behind wants of the result: times its gain, and its squares' sums. What is
// there comes through the ring, an extra stage for each block of both
// warpgroups, and goes back from the same place.
namespace piserve::kernels::weight_gemm::pairs {

// A warpgroup's rows lie together.
inline constexpr int kGroupRows = kBlocks * kBlockRows;
template <int kTokens>
using AdditionShape =
    Shape<kTokens, Pairs::kOfWeights, /*kStages=*/3,
          /*kGroupStep=*/kGroupRows, /*kBlockStep=*/kBlockRows>;

struct Addition {
  CUtensorMap y, gained;
  const float* gain = nullptr;  // [out]; null: nothing for a norm
  float* squares = nullptr;     // [out / kGroupRows, tokens]
  int tokens = 0;
  int out = 0;
};

// 64 outputs of kTokens tokens, a token a row.
template <int kTokens>
inline constexpr int kAdditionBytes = kBlockRows * 2 * kTokens;

template <int kTokens>
struct alignas(1024) AdditionShared {
  char gained[kConsumers][kAdditionBytes<kTokens>];
};

// The producer's part: what is there, of block `block`.
template <int kTokens>
__device__ void FetchAddends(const Addition& a, const Tile& tile, int block,
                             char* stage, std::uint64_t* full) {
  constexpr int kBytes = kAdditionBytes<kTokens>;
  using Stage = typename Ring<AdditionShape<kTokens>>::Stage;
  static_assert(kConsumers * kBytes <= sizeof(Stage) && kBytes % 1024 == 0);
  BarrierArriveExpecting(full, kConsumers * kBytes);
  for (int group = 0; group < kConsumers; ++group) {
    CopyBox(a.y, stage + group * kBytes, full,
            tile.row + group * kGroupRows + block * kBlockRows, tile.token);
  }
}

// A warpgroup's part of a tile.
template <int kTokens>
class Adder {
 public:
  using S = AdditionShape<kTokens>;

  __device__ Adder(const Addition& a, AdditionShared<kTokens>& shared,
                   const Tile& tile, int group)
      : a_(a),
        gained_(shared.gained[group]),
        first_out_(tile.row + group * kGroupRows),
        first_token_(tile.token),
        group_(group) {}

  __device__ __forceinline__ void Run(Ring<S>& ring, Place<S>& place,
                                      const Sums<S>& sums) {
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      const Thread thread;
      const int out = first_out_ + b * kBlockRows;
      const Gains gains(a_, out, thread);
      char* box = ring.stages[place.stage].Bytes() + group_ * kBytes;
      BarrierWait(&ring.full[place.stage], place.parity);
      Add(box, thread, gains, sums[b]);
      FenceForWgmma();
      SyncGroup(group_);  // all have written what one now copies
      if (thread.index == 0) CopyBack(box, out);
      if (a_.gain != nullptr) {
        AddSquares(box, thread.index);
        FenceForWgmma();  // what is copied here next comes behind those reads
      }
      if (thread.index == 0) WaitForCopiesRead();
      SyncGroup(group_);  // all have read
      if (thread.lane < kPeers) {
        BarrierArriveAfterWrites(&ring.empty[place.stage], thread.lane);
      }
      place.Next();
    }
    if (a_.gain != nullptr) StoreSquares();
  }

 private:
  static constexpr int kBytes = kAdditionBytes<kTokens>;
  static constexpr int kTurn = 16;  // tokens that a warp takes at once
  static constexpr int kTokensOfThread = (kTokens + kGroup - 1) / kGroup;
  static_assert(kTokens % 8 == 0);

  // Read anew where it is used: the sums leave few registers.
  struct Thread {
    int index, lane, warp;
    __device__ __forceinline__ Thread()
        : index(ThreadOfCta() % kGroup), lane(index % 32), warp(index / 32) {}
    // Where in a box it addresses 8 outputs of a token of the first turn, for
    // moves of 8 x 8 matrices: of 8 tokens and 8 outputs, outputs first.
    __device__ __forceinline__ int Offset() const {
      return SwizzledOffset(kTokens, lane / 16 * 8 + lane % 8,
                            2 * warp + lane / 8 % 2);
    }
  };

  // Of a thread's two rows in a block.
  struct Gains {
    float of[2] = {0, 0};
    __device__ __forceinline__ Gains(const Addition& a, int out,
                                     const Thread& t) {
      const int row = out + t.warp * 16 + t.lane / 4;
      if (a.gain == nullptr || row >= a.out) return;
      of[0] = __ldg(a.gain + row);
      of[1] = __ldg(a.gain + row + 8);
    }
  };

  __device__ __forceinline__ void Add(char* box, const Thread& thread,
                                      const Gains& gains,
                                      const float (&sums)[kTokens / 2]) {
    char* y = box + thread.Offset();
    char* gained = gained_ + thread.Offset();
#pragma unroll
    for (int t = 0; t < kTokens; t += kTurn) {
      const int to = t * kRowBytes;
      if (t + kTurn <= kTokens) {
        std::uint32_t words[4], times_gain[4];
        LoadMatrix4Transposed(y + to, words);
        AddTurn(words, times_gain, sums, t / 8, gains);
        StoreMatrix4Transposed(y + to, words);
        if (a_.gain != nullptr) StoreMatrix4Transposed(gained + to, times_gain);
      } else {
        std::uint32_t words[2], times_gain[2];
        LoadMatrix2Transposed(y + to, words);
        AddTurn(words, times_gain, sums, t / 8, gains);
        StoreMatrix2Transposed(y + to, words);
        if (a_.gain != nullptr) StoreMatrix2Transposed(gained + to, times_gain);
      }
    }
  }

  // Two tokens of a row a word: the first and the second eight rows of eight
  // tokens, from the first_eight-th eight on.
  template <int kWords>
  __device__ __forceinline__ void AddTurn(std::uint32_t (&words)[kWords],
                                          std::uint32_t (&times_gain)[kWords],
                                          const float (&sums)[kTokens / 2],
                                          int first_eight,
                                          const Gains& gains) const {
#pragma unroll
    for (int k = 0; k < kWords; ++k) {
      const int i = 4 * (first_eight + k / 2) + k % 2 * 2;
      const float2 there = UnpackPair(words[k]);
      words[k] = PackPair(there.x + sums[i], there.y + sums[i + 1]);
      const float2 sum = UnpackPair(words[k]);
      times_gain[k] =
          PackPair(sum.x * gains.of[k % 2], sum.y * gains.of[k % 2]);
    }
  }

  __device__ __forceinline__ void CopyBack(const char* box, int out) const {
    CopyBoxBack(a_.y, box, out, first_token_);
    if (a_.gain != nullptr) CopyBoxBack(a_.gained, gained_, out, first_token_);
  }

  // Of a token's outputs in a box.
  __device__ __forceinline__ void AddSquares(const char* box, int thread) {
#pragma unroll
    for (int i = 0; i < kTokensOfThread; ++i) {
      const int token = thread + i * kGroup;
      if (token >= kTokens) break;
#pragma unroll
      for (int piece = 0; piece < kBlockRows / 8; ++piece) {
        float v[8];
        Unpack(*reinterpret_cast<const Bf16x8*>(
                   box + SwizzledOffset(kTokens, token, piece)),
               v);
#pragma unroll
        for (const float value : v) {
          squares_[i] = fmaf(value, value, squares_[i]);
        }
      }
    }
  }

  __device__ __forceinline__ void StoreSquares() const {
    if (first_out_ >= a_.out) return;
    const Thread thread;
    float* to = a_.squares + std::int64_t{first_out_ / kGroupRows} * a_.tokens +
                first_token_;
#pragma unroll
    for (int i = 0; i < kTokensOfThread; ++i) {
      const int token = thread.index + i * kGroup;
      if (token < kTokens && first_token_ + token < a_.tokens) {
        to[token] = squares_[i];
      }
    }
  }

  const Addition& a_;
  char* gained_;
  const int first_out_, first_token_, group_;
  float squares_[kTokensOfThread] = {};
};

}  // namespace piserve::kernels::weight_gemm::pairs
