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
// So each stage let go of but the last is filled anew, and waited for.
static_assert(kStages == kGroups + 1);

// In the ring's order two stages follow the operands', each of a warpgroup's y,
// boxes from a stage's begin on.
struct Shared {
  struct alignas(1024) Stage {
    char x[kTokens * kRowBytes];
    char w[kOut * kRowBytes];

    __device__ __forceinline__ char* Bytes() {
      return reinterpret_cast<char*>(this);
    }
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
static_assert(kBoxBytes % 128 == 0 && kGroupOut * kRowBytes % 1024 == 0);

struct Params {
  CUtensorMap x, w, y;
  const __nv_bfloat16* bias = nullptr;
  int steps = 0;  // stages of operands
};

// A CTA's, its first token and output.
struct Tile {
  int token = static_cast<int>(blockIdx.x) * kTokens;
  int out = static_cast<int>(blockIdx.y) * kOut;
};

using Place = RingPlace<kStages>;

}  // namespace piserve::kernels::bias_gemm
