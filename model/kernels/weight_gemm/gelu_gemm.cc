// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/gelu_gemm.h"

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

// Of weight rows and tokens.
constexpr int kTileRows = 128, kTileTokens = 208;

bool Tiles(int in, int out) {
  return in > 0 && out > 0 && in % 64 == 0 && out % 8 == 0;
}

}  // namespace

bool GeluGemmSupports(int tokens, int in, int out) {
  return tokens > 0 && Tiles(in, out) &&
         weight_gemm::FillsWaves(out, tokens, kTileRows, kTileTokens,
                                 weight_gemm::Pairs::kOfWeights);
}

cudaError_t LaunchGeluGemm(const GeluGemmArgs& args, cudaStream_t stream) {
  if (!Tiles(args.in, args.out) || args.tokens <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return weight_gemm::LaunchGelu<kTileRows, kTileTokens>(args, processors,
                                                         stream);
}

}  // namespace piserve::kernels
