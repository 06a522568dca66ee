// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/gelu_gemm.h"

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

constexpr int kTileRows = 256, kTileTokens = 208;
constexpr double kLeastFill = 0.9;  // of the waves' tiles, by outputs

bool Tiles(int in, int out) {
  return in > 0 && out > 0 && in % 64 == 0 && out % 8 == 0;
}

}  // namespace

bool GeluGemmSupports(int tokens, int in, int out) {
  if (tokens <= 0 || !Tiles(in, out)) return false;
  const int waves = weight_gemm::Waves(out, tokens, kTileRows, kTileTokens,
                                       kTargetProcessors);
  const double places =
      1.0 * waves * kTargetProcessors * kTileTokens * kTileRows;
  return waves > 1 && 1.0 * tokens * out >= kLeastFill * places;
}

cudaError_t LaunchGeluGemm(const GeluGemmArgs& args, cudaStream_t stream) {
  if (!Tiles(args.in, args.out) || args.tokens <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return weight_gemm::LaunchGelu<kTileTokens>(args, processors, stream);
}

}  // namespace piserve::kernels
