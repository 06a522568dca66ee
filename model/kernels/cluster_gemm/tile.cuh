// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/processors.h"
#include "model/kernels/ring_place.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"

// A tile of 128 outputs by 136 tokens is a cluster's, and each of its CTAs
// multiplies a fourth of the inputs. Then every CTA adds up the four sums of a
// fourth of the tokens. In a CTA two warpgroups multiply, each 64 outputs, and
// a thread of a further warp copies.
namespace piserve::kernels::cluster_gemm {

inline constexpr int kPeers = 4;
inline constexpr int kGroups = 2;
inline constexpr int kWarps = kGroups * kGroup / 32;  // that multiply
inline constexpr int kThreads = (kWarps + 1) * 32;
inline constexpr int kGroupOut = 64;  // outputs of a warpgroup
inline constexpr int kWarpOut = 16;
inline constexpr int kOut = kGroups * kGroupOut;
inline constexpr int kTokens = 136;
inline constexpr int kDepth = 64;  // inputs of a stage
inline constexpr int kRowBytes = kDepth * 2;
inline constexpr int kStages = 4;

// Eight tokens are what a warp hands over at once, the i-th eight of a tile to
// CTA i % kPeers, as its eight number i / kPeers.
inline constexpr int kEights = kTokens / 8;
inline constexpr int kEightsOfPeer = CeilDiv(kEights, kPeers);

struct Shared {
  struct alignas(1024) Stage {
    char w[kOut * kRowBytes];
    char x[kTokens * kRowBytes];
  } stages[kStages];
  // From each CTA, the sums of this one's eights as the warps' lanes have them.
  // Not in the ring's place: a peer may send while this one still multiplies.
  float4 sums[kPeers][kEightsOfPeer][kWarps][32];
  std::uint64_t full[kStages], empty[kStages];

  __device__ void InitBarriers() {
    for (std::uint64_t& barrier : full) BarrierInit(&barrier, 1);
    for (std::uint64_t& barrier : empty) BarrierInit(&barrier, kWarps);
    FenceBarrierInit();
  }
};

struct Params {
  CUtensorMap w, x;
  __nv_bfloat16* y = nullptr;
  int tokens = 0;
  int out = 0;
  int steps = 0;  // stages of a CTA's inputs
  bool adds = false;
};

// A CTA's: its cluster's first token and output, and which part is its own.
struct Tile {
  int peer = static_cast<int>(blockIdx.x) % kPeers;
  int token = static_cast<int>(blockIdx.x) / kPeers * kTokens;
  int out = static_cast<int>(blockIdx.y) * kOut;
};

using Place = RingPlace<kStages>;

}  // namespace piserve::kernels::cluster_gemm
