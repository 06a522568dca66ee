// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/bias_gemm/bias_gemm.h"
#include "model/kernels/bias_gemm/copy.cuh"
#include "model/kernels/bias_gemm/tile.cuh"
#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/shared_mma.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace bias_gemm {
namespace {

// Of a thread. Element 4 g + r of block b: token 64 b + 16 warp + lane / 4 (+ 8
// for r >= 2) of the tile, output 8 g + 2 (lane % 4) + r % 2 of the
// warpgroup's.
using Sums = float[kBlocks][kGroupOut / 2];

// Lets go of the k-th stage, whose products are done; one thread fills it anew.
// Whoever counts such arrivals waits for all of them, as for all that is copied
// to it: a CTA may leave when it is done.
__device__ __forceinline__ void ReleaseAndRefill(const Params& p,
                                                 Shared& shared, int k,
                                                 const Place& place) {
  __syncwarp();
  const int thread = ThreadOfCta();
  if (thread % 32 < kPeers) {
    BarrierArriveAfterReads(&shared.empty[place.stage], thread % 32);
  }
  if (thread == 0) Copier(p, shared).Refill(k, place);
  __syncwarp();
}

__device__ __forceinline__ void Multiply(const Params& p, Shared& shared,
                                         int group, Place& place, Sums& sums) {
  constexpr int kStageBytes = sizeof(Shared::Stage);
  const std::uint64_t x = RowsTile(SharedAddress(shared.stages[0].x));
  const std::uint64_t w = RowsTile(SharedAddress(shared.stages[0].w) +
                                   group * kGroupOut * kRowBytes);
#pragma unroll 1
  for (int k = 0; k < p.steps; ++k) {
    BarrierWait(&shared.full[place.stage], place.parity);
    const int at = place.stage * (kStageBytes >> 4);
    AskForProducts(sums, x + at, kBlockTokens, w + at, k > 0);
    if (k > 0) {
      WgmmaWaitAllButLast();
      ReleaseAndRefill(p, shared, k - 1, place.Before());
    }
    place.Next();
  }
  WgmmaWait();
#pragma unroll
  for (auto& block : sums) HoldRegisters(block);
}

// To what is there, which has come to the ring, and from there back.
__device__ __forceinline__ void Add(const Params& p, Shared& shared, int group,
                                    Place place, const Sums& sums) {
  for (int i = 0; i < group; ++i) place.Next();
  const Tile tile;
  const int thread = ThreadOfCta() % kGroup, lane = thread % 32;
  const int out = tile.out + group * kGroupOut;
  const auto* bias = reinterpret_cast<const __nv_bfloat162*>(p.bias + out);
  BarrierWait(&shared.full[place.stage], place.parity);
  char* boxes = shared.stages[place.stage].Bytes();
  auto* words = reinterpret_cast<std::uint32_t*>(boxes) +
                (thread / 32 * 16 + lane / 4) * (kGroupOut / 2) + lane % 4;
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
#pragma unroll
    for (int g = 0; g < kGroupOut / 8; ++g) {
      const float2 added = __bfloat1622float2(__ldg(bias + lane % 4 + 4 * g));
#pragma unroll
      for (int r = 0; r < 4; r += 2) {
        std::uint32_t& word =
            words[b * (kBoxBytes / 4) + r / 2 * 8 * (kGroupOut / 2) + 4 * g];
        const float2 there =
            __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(word));
        const int i = 4 * g + r;
        word = PackPair(there.x + (sums[b][i] + added.x),
                        there.y + (sums[b][i + 1] + added.y));
      }
    }
    FenceForWgmma();
    SyncGroup(group);  // all have written what one now copies
    if (thread == 0) {
      CopyBoxBack(p.y, boxes + b * kBoxBytes, out,
                  tile.token + b * kBlockTokens);
    }
  }
  if (thread == 0) WaitForCopiesRead();
}

__global__ void __launch_bounds__(kThreads, 1)
    BiasKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<Shared>(raw);
  LetNextStart();
  InitClusterBarriers(shared);
  ClusterWait();  // the peer's barriers are there
  if (threadIdx.x == 0) Copier(p, shared).Begin();
  __syncwarp();
  const int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0);
  Place place;
  Sums sums;
  Multiply(p, shared, group, place, sums);
  Add(p, shared, group, place, sums);
}

cudaError_t EncodeBoxesMap(__nv_bfloat16* y, int tokens, int out,
                           CUtensorMap* map) {
  const auto width = static_cast<std::uint64_t>(out);
  return EncodeTensorMap({.data = y,
                          .rank = 2,
                          .size = {width, static_cast<std::uint64_t>(tokens)},
                          .stride_bytes = {2 * width},
                          .box = {kGroupOut, kBlockTokens},
                          .swizzle = Swizzle::kNone},
                         map);
}

constexpr int kMostAlongY = 65535;  // of a grid's CTAs

bool Tiles(int tokens, int in, int out) {
  return tokens > 0 && out > 0 && tokens % (kPeers * kTokens) == 0 &&
         in % kDepth == 0 && in >= kStages * kDepth && out % kOut == 0 &&
         out / kOut <= kMostAlongY;
}

}  // namespace
}  // namespace bias_gemm

bool BiasGemmSupports(int tokens, int in, int out) {
  constexpr double kLeastFill = 0.9;  // of the multiprocessors
  if (!bias_gemm::Tiles(tokens, in, out)) return false;
  const auto ctas = static_cast<std::int64_t>(tokens / bias_gemm::kTokens) *
                    (out / bias_gemm::kOut);
  return ctas <= kTargetProcessors && ctas >= kLeastFill * kTargetProcessors;
}

cudaError_t LaunchBiasGemm(const BiasGemmArgs& args, cudaStream_t stream) {
  using namespace bias_gemm;
  if (!Tiles(args.tokens, args.in, args.out)) return cudaErrorInvalidValue;
  Params p;
  p.bias = args.bias;
  p.steps = args.in / kDepth;
  for (const cudaError_t error :
       {EncodeRowsMap(args.x, args.tokens, args.in, kTokens, &p.x),
        EncodeRowsMap(args.w, args.out, args.in, kOut / kPeers, &p.w),
        EncodeBoxesMap(args.y, args.tokens, args.out, &p.y)}) {
    if (error != cudaSuccess) return error;
  }
  LaunchShape shape;
  shape.grid = dim3(args.tokens / kTokens, args.out / kOut);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  shape.cluster = kPeers;
  return Launch(BiasKernel, shape, stream, p);
}

}  // namespace piserve::kernels
