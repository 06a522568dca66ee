// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/split_gemm.h"

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

constexpr int kWidths[] = {144, 208};  // tokens of a tile
constexpr int kTileRows = 128;
// Tiles that one wave holds, and those below which library kernels win.
constexpr int kMostTiles = kTargetProcessors, kLeastTiles = 110;

int Tiles(int tokens, int out, int width) {
  return CeilDiv(tokens, width) * (out / kTileRows) * kSplitGemmParts;
}

// The narrowest tile with which one wave suffices; 0 if none does.
int WidthFor(int tokens, int in, int out) {
  if (tokens <= 0 || tokens > kSplitGemmTokens || out % kTileRows != 0 ||
      in % (kSplitGemmParts * 64) != 0 || in < 8192) {
    return 0;
  }
  for (const int width : kWidths) {
    const int tiles = Tiles(tokens, out, width);
    if (tiles <= kMostTiles) return tiles >= kLeastTiles ? width : 0;
  }
  return 0;
}

}  // namespace

bool SplitGemmSupports(int tokens, int in, int out) {
  return WidthFor(tokens, in, out) != 0;
}

cudaError_t LaunchSplitGemm(const SplitGemmArgs& args, cudaStream_t stream) {
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) {
    return e;
  }
  switch (WidthFor(args.tokens, args.in, args.out)) {
    case 144:
      return weight_gemm::LaunchSplit<144>(args, processors, stream);
    case 208:
      return weight_gemm::LaunchSplit<208>(args, processors, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace piserve::kernels
