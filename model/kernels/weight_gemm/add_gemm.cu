// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "model/kernels/weight_gemm/add_gemm.h"
#include "model/kernels/weight_gemm/pairs/add.cuh"
#include "model/kernels/weight_gemm/pairs/kernel.cuh"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace weight_gemm::pairs {
namespace {

// 8 x 33 tiles of prefill's 6528 tokens: two full waves of 132.
constexpr int kTokens = 200;
using S = AdditionShape<kTokens>;

struct Shared {
  Ring<S> ring;
  AdditionShared<kTokens> addition;
};

struct Params {
  Product product;
  Addition addition;
};

__global__ void __launch_bounds__(kThreads, 1)
    AddKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  auto& shared = AlignShared<Shared>(raw);
  const auto fetch = [&](const Tile& tile, int block, char* stage,
                         std::uint64_t* full) {
    FetchAddends<kTokens>(p.addition, tile, block, stage, full);
  };
  RunRoles(
      shared.ring,
      [&] { Producer<S>(p.product, shared.ring).Run(kBlocks, fetch); },
      [&](int group) {
        Place<S> place;
        ForEachTile<S>(p.product, [&](const Tile& tile) {
          Sums<S> sums;
          MultiplyTile<S>(p.product, shared.ring, group, place, sums);
          Adder<kTokens>(p.addition, shared.addition, tile, group)
              .Run(shared.ring, place, sums);
        });
      });
}

cudaError_t LaunchAdd(const AddGemmArgs& a, int processors,
                      cudaStream_t stream) {
  Params p;
  p.addition.gain = a.gain;
  p.addition.squares = a.squares;
  p.addition.tokens = a.tokens;
  p.addition.out = a.out;
  for (const cudaError_t error :
       {Describe<S>({.w = a.w,
       .x = a.x,
       .rows = a.out,
       .tokens = a.tokens,
       .in = a.in,
       .band = CeilDiv(a.out, kRows)},
                    &p.product),
        EncodeRowsMap(a.y, a.tokens, a.out, kTokens, &p.addition.y),
        a.gain == nullptr ? cudaSuccess
                          : EncodeRowsMap(a.gained, a.tokens, a.out, kTokens,
                                          &p.addition.gained)}) {
    if (error != cudaSuccess) return error;
  }
  return LaunchPairs<Shared>(AddKernel, p, processors, stream);
}

constexpr int kLeastIn = 8192;  // below, the epilogue weighs too much

bool Tiles(int in, int out) {
  return in > 0 && out > 0 && in % kDepth == 0 && out % kRows == 0;
}

}  // namespace
}  // namespace weight_gemm::pairs

bool AddGemmSupports(int tokens, int in, int out) {
  using namespace weight_gemm;
  return tokens > 0 && in >= pairs::kLeastIn && pairs::Tiles(in, out) &&
         FillsWaves(out, tokens, pairs::kRows, pairs::kTokens,
                    Pairs::kOfWeights);
}

cudaError_t LaunchAddGemm(const AddGemmArgs& args, cudaStream_t stream) {
  using namespace weight_gemm::pairs;
  static_assert(kAddGemmSquares == kGroupRows);
  if (!Tiles(args.in, args.out) || args.tokens <= 0 ||
      args.tokens > std::numeric_limits<int>::max() / args.out) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return LaunchAdd(args, processors, stream);
}

}  // namespace piserve::kernels
