// SPDX-License-Identifier: Apache-2.0
// A consumer warpgroup multiplies 64 tokens, which pass through its registers,
// with a tile of weights in shared memory, and meanwhile sums the tokens and
// their squares: so the norm costs no pass of its own over memory, and no
// kernel. Bound by shared memory's bandwidth (per stage of 64 inputs and 160
// outputs 736 cycles of it, 640 of the tensor cores), at few tokens also by the
// tile's ramps.
#include "model/kernels/launch.cuh"
#include "model/kernels/norm_gemm/consume.cuh"
#include "model/kernels/norm_gemm/norm_gemm.h"
#include "model/kernels/norm_gemm/produce.cuh"
#include "model/kernels/norm_gemm/tile.cuh"
#include "model/kernels/processors.h"

namespace piserve::kernels {
namespace norm_gemm {
namespace {

constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

template <int kOut>
__device__ void InitBarriers(Shared<kOut>& shared) {
  for (std::uint64_t& full : shared.full) BarrierInit(&full, 1);
  for (std::uint64_t& empty : shared.empty) {
    BarrierInit(&empty, kPeers * kConsumers * kGroup / 32);
  }
  FenceBarrierInit();
}

template <int kOut>
__global__ void __launch_bounds__(kThreads, 1)
    NormGemmKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<Shared<kOut>>(raw);
  LetNextStart();
  if (threadIdx.x == 0) {
    PrefetchTensorMap(p.x);
    PrefetchTensorMap(p.w);
    InitBarriers(shared);
  }
  __syncthreads();
  ClusterArriveRelaxed();
  ClusterWait();  // the peer's barriers are there
  if (threadIdx.x < kGroup) {
    GiveRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) Producer<kOut>(p, shared).Run();
  } else {
    TakeRegisters<kConsumerRegisters>();
    Consumer<kOut>(p, shared).Run();
  }
  ClusterLeave();  // what a peer's producer copies here has landed
}

template <int kOut>
cudaError_t LaunchTiles(const NormGemmArgs& a, int tiles, cudaStream_t stream) {
  Params p;
  p.args = a;
  p.columns = CeilDiv(a.out, kOut);
  for (const cudaError_t error :
       {EncodeRowsMap(a.x, a.tokens, a.in, kTokens, &p.x),
        EncodeRowsMap(a.w, a.out, a.in, kOut / kPeers, &p.w)}) {
    if (error != cudaSuccess) return error;
  }
  LaunchShape shape;
  shape.grid = dim3(tiles);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared<kOut>>;
  shape.cluster = kPeers;
  return Launch(NormGemmKernel<kOut>, shape, stream, p);
}

struct Width {
  int out;
  cudaError_t (*launch)(const NormGemmArgs&, int, cudaStream_t);
};

constexpr Width kWidths[] = {{112, LaunchTiles<112>},
                             {144, LaunchTiles<144>},
                             {160, LaunchTiles<160>},
                             {208, LaunchTiles<208>}};
constexpr int kMostTiles = kTargetProcessors;  // that one wave holds

int Tiles(int tokens, int out, const Width& width) {
  return tokens / kTokens * ((out + width.out - 1) / width.out);
}

// The narrowest with which one wave suffices, or null.
const Width* WidthFor(int tokens, int in, int out) {
  if (tokens <= 0 || in <= 0 || out <= 0 || tokens % (kPeers * kTokens) != 0 ||
      in % (2 * kDepth) != 0 || out % 8 != 0) {
    return nullptr;
  }
  for (const Width& width : kWidths) {
    if (Tiles(tokens, out, width) <= kMostTiles) return &width;
  }
  return nullptr;
}

}  // namespace
}  // namespace norm_gemm

bool NormGemmSupports(int tokens, int in, int out) {
  return norm_gemm::WidthFor(tokens, in, out) != nullptr;
}

cudaError_t LaunchNormGemm(const NormGemmArgs& args, cudaStream_t stream) {
  const norm_gemm::Width* width =
      norm_gemm::WidthFor(args.tokens, args.in, args.out);
  if (width == nullptr) return cudaErrorInvalidValue;
  return width->launch(args, norm_gemm::Tiles(args.tokens, args.out, *width),
                       stream);
}

}  // namespace piserve::kernels
