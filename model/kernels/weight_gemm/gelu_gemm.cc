// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/gelu_gemm.h"

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/large_tile.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

bool Tiles(int in, int out) {
  return in > 0 && out > 0 && in % 64 == 0 && out % 8 == 0;
}

}  // namespace

bool GeluGemmSupports(int tokens, int in, int out) {
  return tokens > 0 && Tiles(in, out) &&
         weight_gemm::FillsLargeTiles(tokens, out);
}

cudaError_t LaunchGeluGemm(const GeluGemmArgs& args, cudaStream_t stream) {
  if (!Tiles(args.in, args.out) || args.tokens <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return weight_gemm::LaunchGelu<weight_gemm::kLargeTileTokens>(
      args, processors, stream);
}

}  // namespace piserve::kernels
