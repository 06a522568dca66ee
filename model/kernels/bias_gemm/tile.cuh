// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/ring_place.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"

// The largest tile whose sums fit a multiprocessor's registers: 192 tokens by
// 288 outputs, half of them each of two warpgroups. A third one, to copy, would
// not fit beside them, so one of their threads does. The two CTAs of a cluster
// have neighbouring tokens and fetch half of the weights for both.
namespace piserve::kernels::bias_gemm {

inline constexpr int kGroups = 2;
inline constexpr int kThreads = kGroups * kGroup;
inline constexpr int kPeers = 2;
inline constexpr int kBlocks = 3;  // of 64 tokens
inline constexpr int kBlockTokens = 64;
inline constexpr int kTokens = kBlocks * kBlockTokens;
inline constexpr int kGroupOut = 144;  // outputs of a warpgroup
inline constexpr int kOut = kGroups * kGroupOut;
inline constexpr int kDepth = 64;  // inputs of a stage
inline constexpr int kRowBytes = kDepth * 2;
inline constexpr int kStages = 3;
inline constexpr int kBoxBytes = kBlockTokens * kGroupOut * 2;  // of y

// Behind the operands' stages come two more, each with a warpgroup's y.
struct Shared {
  struct alignas(1024) Stage {
    char x[kTokens * kRowBytes];
    char w[kOut * kRowBytes];
  } stages[kStages];
  std::uint64_t full[kStages], empty[kStages];

  __device__ void InitBarriers() {
    for (std::uint64_t& barrier : full) BarrierInit(&barrier, 1);
    for (std::uint64_t& barrier : empty) {
      BarrierInit(&barrier, kPeers * kThreads / 32);
    }
    FenceBarrierInit();
  }
};
static_assert(kBlocks * kBoxBytes <= sizeof(Shared::Stage));

struct Params {
  CUtensorMap x, w, y;
  const __nv_bfloat16* bias = nullptr;
  int steps = 0;  // stages of operands
  int lines = 0;  // pairs of tiles along the tokens
};

// A CTA's, its first token and output.
struct Tile {
  int token, out;
  __device__ __forceinline__ explicit Tile(const Params& p) {
    const int pair = static_cast<int>(blockIdx.x) / kPeers;
    const int peer = static_cast<int>(blockIdx.x) % kPeers;
    token = (pair % p.lines * kPeers + peer) * kTokens;
    out = pair / p.lines * kOut;
  }
};

using Place = RingPlace<kStages>;

}  // namespace piserve::kernels::bias_gemm
