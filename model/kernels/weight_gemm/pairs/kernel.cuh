// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>

#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/pairs/multiply.cuh"
#include "model/kernels/weight_gemm/pairs/produce.cuh"

// What the kernels of these tiles have in common.
namespace piserve::kernels::weight_gemm::pairs {

// Behind the calls of `produce` in one thread and `consume(group)` in both
// warpgroups.
template <typename S, typename Produce, typename Consume>
__device__ __forceinline__ void RunRoles(Ring<S>& ring, Produce&& produce,
                                         Consume&& consume) {
  LetNextStart();
  InitClusterBarriers(ring);
  ClusterWait();  // the peer's barriers are there
  if (threadIdx.x < kGroup) {
    GiveRegisters<kProducerRegisters>();
    if (threadIdx.x == 0) produce();
  } else {
    TakeRegisters<kConsumerRegisters>();
    consume(__shfl_sync(~0u, threadIdx.x / kGroup, 0) - 1);
  }
  ClusterLeave();  // nobody is left that copies here
}

struct Operands {
  const __nv_bfloat16* w = nullptr;  // [rows, in]
  const __nv_bfloat16* x = nullptr;  // [tokens, in]
  int rows = 0;
  int tokens = 0;
  int in = 0;
  int band = 0;  // weight tiles of a band; of several each is full
};

template <typename S>
cudaError_t Describe(const Operands& o, Product* p) {
  constexpr bool kTokenPairs = S::kPairs == Pairs::kOfTokens;
  const int lines = CeilDiv(o.tokens, S::kTokens * (kTokenPairs ? kPeers : 1));
  const int tiles = CeilDiv(o.rows, kRows);
  p->steps = o.in / kDepth;
  p->columns = CeilDiv(o.band, kTokenPairs ? 1 : kPeers);
  p->band_pairs = p->columns * lines;
  p->pairs = CeilDiv(tiles, o.band) * p->band_pairs;
  if (cudaError_t e = EncodeRowsMap(
          o.w, o.rows, o.in, kTokenPairs ? kRows / kPeers : kRows, &p->w);
      e != cudaSuccess) {
    return e;
  }
  return EncodeRowsMap(o.x, o.tokens, o.in,
                       kTokenPairs ? S::kTokens : S::kTokens / kPeers, &p->x);
}

// `Shared` is what the kernel keeps in shared memory; p.product says how many
// tiles there are.
template <typename Shared, typename Params>
cudaError_t LaunchPairs(void (*kernel)(Params), const Params& p, int processors,
                        cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(std::min(processors / kPeers, p.product.pairs) * kPeers);
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  shape.cluster = kPeers;
  return Launch(kernel, shape, stream, p);
}

}  // namespace piserve::kernels::weight_gemm::pairs
