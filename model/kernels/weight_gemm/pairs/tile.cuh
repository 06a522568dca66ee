// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/ring_place.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"
#include "model/kernels/weight_gemm/tile.h"

// GEMM tiles by a main loop of our own. Two CTAs form a cluster and share the
// tokens or the weights of their tiles: each copies half of them for both, and
// all of what it alone needs. In a CTA one thread copies (produce.cuh) and two
// warpgroups multiply (multiply.cuh). What else a tile wants of memory passes
// through the same ring, behind its operands.
namespace piserve::kernels::weight_gemm::pairs {

inline constexpr int kConsumers = 2;
inline constexpr int kThreads = (1 + kConsumers) * kGroup;
inline constexpr int kPeers = 2;
inline constexpr int kBlocks = 2;  // of 64 weight rows, to a warpgroup
inline constexpr int kBlockRows = 64;
inline constexpr int kRows = kConsumers * kBlocks * kBlockRows;  // of a tile
inline constexpr int kDepth = 64;  // inputs of a stage
inline constexpr int kRowBytes = kDepth * 2;
inline constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

// Of a kernel. Block b of warpgroup g are the weight rows from kGroupStep g +
// kBlockStep b of a tile on.
template <int kTokens_, Pairs kPairs_, int kStages_, int kGroupStep_,
          int kBlockStep_>
struct Shape {
  static constexpr int kTokens = kTokens_;  // of a tile
  static constexpr Pairs kPairs = kPairs_;
  static constexpr int kStages = kStages_;
  static constexpr int kGroupStep = kGroupStep_, kBlockStep = kBlockStep_;
};

template <typename S>
struct Ring {
  struct alignas(1024) Stage {
    char w[kRows * kRowBytes];
    char x[S::kTokens * kRowBytes];

    __device__ __forceinline__ char* Bytes() {
      return reinterpret_cast<char*>(this);
    }
  } stages[S::kStages];
  std::uint64_t full[S::kStages], empty[S::kStages];

  __device__ void InitBarriers() {
    for (std::uint64_t& barrier : full) BarrierInit(&barrier, 1);
    for (std::uint64_t& barrier : empty) {
      BarrierInit(&barrier, kPeers * kConsumers * kGroup / 32);
    }
    FenceBarrierInit();
  }
};

// Counted: a tile's stages, then what its epilogue adds to them, then the next
// tile's.
template <typename S>
using Place = RingPlace<S::kStages>;

// Operands, and in which order clusters take pairs of tiles: of a band of
// weights the weights first, then the tokens, then the next band.
struct Product {
  CUtensorMap w, x;
  int steps = 0;       // stages of a tile
  int columns = 0;     // tiles or pairs of tiles along a band's weights
  int band_pairs = 0;  // pairs of tiles of a band
  int pairs = 0;       // in all
};

// A CTA's: the first of its weight rows and tokens. The second of a pair may
// lie past the end.
struct Tile {
  int row, token;
};

template <typename S>
__device__ __forceinline__ Tile TileOf(const Product& p, int pair) {
  constexpr bool kTokenPairs = S::kPairs == Pairs::kOfTokens;
  const int peer = static_cast<int>(blockIdx.x) % kPeers;
  const int band = pair / p.band_pairs, within = pair % p.band_pairs;
  const int column = band * p.columns + within % p.columns;
  const int line = within / p.columns;
  return {(kTokenPairs ? column : column * kPeers + peer) * kRows,
          (kTokenPairs ? line * kPeers + peer : line) * S::kTokens};
}

template <typename S, typename Use>
__device__ __forceinline__ void ForEachTile(const Product& p, Use&& use) {
  const int clusters = static_cast<int>(gridDim.x) / kPeers;
#pragma unroll 1
  for (int pair = static_cast<int>(blockIdx.x) / kPeers; pair < p.pairs;
       pair += clusters) {
    use(TileOf<S>(p, pair));
  }
}

}  // namespace piserve::kernels::weight_gemm::pairs
