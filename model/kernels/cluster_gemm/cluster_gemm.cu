// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "model/kernels/cluster_gemm/add.cuh"
#include "model/kernels/cluster_gemm/cluster_gemm.h"
#include "model/kernels/cluster_gemm/copy.cuh"
#include "model/kernels/cluster_gemm/tile.cuh"
#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/shared_mma.cuh"

namespace piserve::kernels {
namespace cluster_gemm {
namespace {

// A warpgroup's sums over this CTA's inputs.
__device__ __forceinline__ void Multiply(const Params& p, Shared& shared,
                                         int group, Sums& sums) {
  constexpr int kStageBytes = sizeof(Shared::Stage);
  const std::uint64_t w = RowsTile(SharedAddress(shared.stages[0].w) +
                                   group * kGroupOut * kRowBytes);
  const std::uint64_t x = RowsTile(SharedAddress(shared.stages[0].x));
  Place place;
#pragma unroll 1
  for (int k = 0; k < p.steps; ++k) {
    BarrierWait(&shared.full[place.stage], place.parity);
    const int at = place.stage * (kStageBytes >> 4);
    AskForProducts(sums, w + at, kGroupOut, x + at, k > 0);
    if (k > 0) {
      WgmmaWaitAllButLast();
      __syncwarp();
      if (Lane() == 0) BarrierArrive(&shared.empty[place.Before().stage]);
    }
    place.Next();
  }
  WgmmaWait();
  HoldRegisters(sums[0]);
}

__global__ void __launch_bounds__(kThreads, 1)
    ClusterKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<Shared>(raw);
  LetNextStart();
  InitClusterBarriers(shared);
  const int warp = __shfl_sync(~0u, threadIdx.x / 32, 0);
  if (warp == kWarps) {
    if (Lane() == 0) Copier(p, shared).Run();
    // The cluster's barriers count this warp, too.
    ClusterWait();
    ClusterLeave();
    return;
  }
  WaitForPrevious();
  const Tile tile;
  Adder adder(p, tile, warp);
  adder.Fetch();
  Sums sums;
  Multiply(p, shared, warp * 32 / kGroup, sums);
  ClusterWait();  // the peers have started: what is sent has a place
  SendSums(shared, tile, warp, sums);
  ClusterSync();  // all sums are here; nobody sends to a CTA that leaves
  adder.Run(shared);
}

constexpr int kMostAlongY = 65535;  // of a grid's CTAs

bool Tiles(int tokens, int in, int out) {
  return tokens > 0 && in > 0 && out > 0 && in % (kPeers * kDepth) == 0 &&
         out % kOut == 0 && out / kOut <= kMostAlongY &&
         tokens <= std::numeric_limits<int>::max() / out;
}

}  // namespace
}  // namespace cluster_gemm

bool ClusterGemmSupports(int tokens, int in, int out) {
  using namespace cluster_gemm;
  // The expert's 400 and 408 tokens make 24. Of fewer, or of tiles less full, a
  // library's product was as fast or faster (docs/benchmarks.md).
  constexpr int kLeastClusters = 24;
  constexpr double kLeastFill = 0.95;  // of the tiles
  constexpr int kLeastIn = 2048;
  if (!Tiles(tokens, in, out) || in < kLeastIn) return false;
  const int across = CeilDiv(tokens, kTokens);
  const int clusters = out / kOut * across;
  return clusters >= kLeastClusters && clusters <= kTargetClustersOfFour &&
         tokens >= kLeastFill * kTokens * across;
}

cudaError_t LaunchClusterGemm(const ClusterGemmArgs& args,
                              cudaStream_t stream) {
  using namespace cluster_gemm;
  if (!Tiles(args.tokens, args.in, args.out)) return cudaErrorInvalidValue;
  Params p;
  p.y = args.y;
  p.tokens = args.tokens;
  p.out = args.out;
  p.steps = args.in / (kPeers * kDepth);
  p.adds = args.adds;
  for (const cudaError_t error :
       {EncodeRowsMap(args.x, args.tokens, args.in, kTokens, &p.x),
        EncodeRowsMap(args.w, args.out, args.in, kOut, &p.w)}) {
    if (error != cudaSuccess) return error;
  }
  LaunchShape shape;
  shape.grid = dim3(CeilDiv(args.tokens, kTokens) * kPeers, args.out / kOut);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  shape.cluster = kPeers;
  return Launch(ClusterKernel, shape, stream, p);
}

}  // namespace piserve::kernels
