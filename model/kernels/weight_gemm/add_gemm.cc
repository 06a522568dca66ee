// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/add_gemm.h"

#include <limits>

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

// Of weight rows and tokens: the largest whose sums fit two warpgroups.
constexpr int kTileRows = kAddGemmSquares, kTileTokens = 208;
constexpr int kLeastIn = 8192;  // below, the epilogue weighs too much

bool Tiles(int in, int out) {
  return in > 0 && out > 0 && in % 64 == 0 && out % kTileRows == 0;
}

}  // namespace

bool AddGemmSupports(int tokens, int in, int out) {
  return tokens > 0 && in >= kLeastIn && Tiles(in, out) &&
         weight_gemm::FillsWaves(out, tokens, kTileRows, kTileTokens);
}

cudaError_t LaunchAddGemm(const AddGemmArgs& args, cudaStream_t stream) {
  if (!Tiles(args.in, args.out) || args.tokens <= 0 ||
      args.tokens > std::numeric_limits<int>::max() / args.out) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) {
    return e;
  }
  return weight_gemm::LaunchAdd<kTileTokens>(args, processors, stream);
}

}  // namespace piserve::kernels
