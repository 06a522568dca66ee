// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/norm_gemm/norm_gemm.h"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"

// What producer and consumers of a CTA share. Two CTAs with neighbouring tokens
// form a cluster and fetch half of each tile of weights for both.
namespace piserve::kernels::norm_gemm {

inline constexpr int kConsumers = 2;
inline constexpr int kThreads = (1 + kConsumers) * kGroup;
inline constexpr int kPeers = 2;
inline constexpr int kRows = 64;  // tokens of a consumer warpgroup
inline constexpr int kTokens = kConsumers * kRows;
inline constexpr int kDepth = 64;  // inputs of a stage
inline constexpr int kTokenBytes = kTokens * kDepth * 2;

// kOut of the outputs at a time.
template <int kOut>
struct Shared {
  static constexpr int kWeightBytes = kOut * kDepth * 2;
  static constexpr int kStageBytes = kTokenBytes + kWeightBytes;
  static constexpr int kStages = (kMostSharedBytes - 2048) / kStageBytes;
  static_assert(kOut % 16 == 0 && kWeightBytes % 2048 == 0);

  struct Stage {
    char x[kTokenBytes];
    char w[kWeightBytes];
  } stages[kStages];
  std::uint64_t full[kStages], empty[kStages];
};

struct Params {
  CUtensorMap x, w;
  NormGemmArgs args;
  int columns = 0;  // tiles of outputs
};

// A CTA's tile.
struct Tile {
  int token;   // its first
  int output;  // its first, which its peer shares

  __device__ Tile(const Params& p, int outputs) {
    const int pair = static_cast<int>(blockIdx.x) / kPeers;
    const int peer = static_cast<int>(blockIdx.x) % kPeers;
    token = (pair / p.columns * kPeers + peer) * kTokens;
    output = pair % p.columns * outputs;
  }
};

}  // namespace piserve::kernels::norm_gemm
