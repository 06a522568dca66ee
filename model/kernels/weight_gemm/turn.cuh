// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cute/arch/copy_sm75.hpp>
#include <cute/arch/copy_sm90.hpp>

#include "model/kernels/weight_gemm/epilogue.cuh"

// A thread's accumulators are few rows of many tokens, memory wants many rows
// of one token: a warp turns its 16 rows of 16 tokens through shared memory,
// and each lane then moves 8 rows of one token, two lanes a sector.
namespace piserve::kernels::weight_gemm {

inline constexpr int kTurned = 16;  // rows and tokens of a warp at once

// Two tokens of a row a word: of 8 tokens and 8 rows, first 8 rows first.
struct TurnedWords {
  std::uint32_t word[4];
};

// The first of the two accumulators that word k of a turn is made of, of half h
// of a tile of kTokens tokens (Place).
template <int kTokens>
CUTLASS_HOST_DEVICE constexpr int TurnedAccumulator(int h, int turn, int k) {
  const int group = h * (kTokens / 8) + turn * (kTurned / 8) + k / 2;
  return 4 * group + k % 2 * 2;
}

// Chunks of 8 rows of a token; TurnLane says which is where.
struct alignas(128) TurnPlace {
  uint4 chunks[2 * kTurned];
};

// What a lane of the warp writes and reads.
struct TurnLane {
  CUTLASS_DEVICE explicit TurnLane(int lane)
      : token(lane / 2),
        first_row(lane % 2 * 8),
        chunk(Chunk(token, lane % 2)),
        matrix_row_(Chunk(lane / 16 * 8 + lane % 8, lane / 8 % 2)) {}

  // From the accumulators' order to chunks, and back.
  CUTLASS_DEVICE void Store(const TurnedWords& words, TurnPlace& place) const {
    cute::SM90_U16x8_STSM_T::copy(words.word[0], words.word[1], words.word[2],
                                  words.word[3], Row(place));
  }
  CUTLASS_DEVICE TurnedWords Load(TurnPlace& place) const {
    TurnedWords words;
    cute::SM75_U16x8_LDSM_T::copy(Row(place), words.word[0], words.word[1],
                                  words.word[2], words.word[3]);
    return words;
  }

  int token;      // of the 16
  int first_row;  // of the lane's 8
  int chunk;      // where those lie

 private:
  // Lane 8 j + i addresses row i of matrix j: of tokens 8 (j / 2) on, the rows'
  // half j % 2.
  CUTLASS_DEVICE cute::uint128_t& Row(TurnPlace& place) const {
    return reinterpret_cast<cute::uint128_t&>(place.chunks[matrix_row_]);
  }
  // Such that eight tokens' same half are in different banks, and four tokens'
  // both.
  CUTLASS_DEVICE static int Chunk(int token, int half) {
    return token * 2 + (half ^ token / 4 % 2);
  }

  int matrix_row_;
};

}  // namespace piserve::kernels::weight_gemm
