// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/cluster_gemm/tile.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels::cluster_gemm {

// Of a thread. Element 4 g + r: output 16 warp + lane / 4 (+ 8 for r >= 2) of
// the tile, token 8 g + 2 (lane % 4) + r % 2.
using Sums = float[1][kTokens / 2];

// Hands each CTA of the cluster this one's sums of its eights.
__device__ __forceinline__ void SendSums(Shared& shared, const Tile& tile,
                                         int warp, const Sums& sums) {
  const int lane = Lane();
  std::uint32_t to[kPeers];
#pragma unroll
  for (int peer = 0; peer < kPeers; ++peer) {
    to[peer] = PeerAddress(&shared.sums[tile.peer][0][warp][lane], peer);
  }
#pragma unroll
  for (int i = 0; i < kEights; ++i) {
    constexpr int kEightBytes = sizeof(shared.sums[0][0]);
    StoreToPeer(to[i % kPeers] + i / kPeers * kEightBytes,
                {sums[0][4 * i], sums[0][4 * i + 1], sums[0][4 * i + 2],
                 sums[0][4 * i + 3]});
  }
}

// A warp's part of what its CTA adds up: of each of its eights 16 outputs. A
// lane has, in memory's order, two pairs of a token's outputs.
class Adder {
 public:
  __device__ __forceinline__ Adder(const Params& p, const Tile& tile, int warp)
      : p_(p), peer_(tile.peer), warp_(warp) {
    const int lane = Lane();
    token_ = tile.token + peer_ * 8 + lane / 4;
    first_ = std::int64_t{token_} * p.out + tile.out + warp * kWarpOut +
             lane % 4 * 2;
  }

  // What is there, to be added to.
  __device__ __forceinline__ void Fetch() {
    if (!p_.adds) return;
#pragma unroll
    for (int i = 0; i < kEightsOfPeer; ++i) {
      if (!HasEight(i)) break;
      if (!HasToken(i)) continue;
      there_[i][0] = *At(i, 0);
      there_[i][1] = *At(i, 8);
    }
  }

  __device__ __forceinline__ void Run(const Shared& shared) const {
    const int lane = Lane();
#pragma unroll
    for (int i = 0; i < kEightsOfPeer; ++i) {
      if (!HasEight(i)) break;  // of the whole warp
      __syncwarp();
      float4 sum = shared.sums[0][i][warp_][lane];
#pragma unroll
      for (int from = 1; from < kPeers; ++from) {
        const float4 more = shared.sums[from][i][warp_][lane];
        sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
      }
      const std::uint32_t low = Plus(there_[i][0], sum.x, sum.y);
      const std::uint32_t high = Plus(there_[i][1], sum.z, sum.w);
      if (!HasToken(i)) continue;
      *At(i, 0) = low;
      *At(i, 8) = high;
    }
  }

 private:
  // Whether the tile has an i-th eight for this CTA, and that this lane's
  // token.
  __device__ __forceinline__ bool HasEight(int i) const {
    return i * kPeers + peer_ < kEights;
  }
  __device__ __forceinline__ bool HasToken(int i) const {
    return token_ + i * kPeers * 8 < p_.tokens;
  }
  __device__ __forceinline__ std::uint32_t* At(int i, int output) const {
    return reinterpret_cast<std::uint32_t*>(
        p_.y + first_ + std::int64_t{i} * kPeers * 8 * p_.out + output);
  }
  // A word of memory's order plus what a lane has of an 8 x 8 block of sums,
  // two tokens of an output.
  __device__ __forceinline__ static std::uint32_t Plus(std::uint32_t there,
                                                       float first,
                                                       float second) {
    const float2 tokens = UnpackPair(TransposeMatrix(there));
    return TransposeMatrix(PackPair(tokens.x + first, tokens.y + second));
  }

  const Params& p_;
  const int peer_, warp_;
  int token_;
  std::int64_t first_;
  std::uint32_t there_[kEightsOfPeer][2] = {};
};

}  // namespace piserve::kernels::cluster_gemm
