// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/geglu_gemm.h"

#include <limits>

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/pairs/geglu.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

struct Tile {
  int rows;    // of weights
  int tokens;  // of tokens
  // Work that a full tile gets done, TFLOP/s on one H200 if all its
  // multiprocessors have one; a smaller one reads more for what it computes.
  double rate;
  cudaError_t (*launch)(const GegluGemmArgs&, int, cudaStream_t);
};

constexpr Tile kTiles[] = {
    {256, 208, 813, weight_gemm::LaunchGeglu<256, 208>},
    {256, 192, 811, weight_gemm::pairs::LaunchGeglu},
    {256, 144, 771, weight_gemm::LaunchGeglu<256, 144>},
    {128, 208, 700, weight_gemm::LaunchGeglu<128, 208>},
    {128, 112, 560, weight_gemm::LaunchGeglu<128, 112>},
};

// How long the busiest multiprocessor computes, in units of its own.
double Time(const GegluGemmArgs& args, const Tile& tile, int processors) {
  return weight_gemm::Waves(2 * args.out, args.tokens, tile.rows, tile.tokens,
                            processors) *
         tile.rows * tile.tokens / tile.rate;
}

}  // namespace

bool GegluGemmSupports(int in, int out) {
  return in > 0 && out > 0 && in % 64 == 0 && out % 128 == 0;
}

cudaError_t LaunchGegluGemm(const GegluGemmArgs& args, cudaStream_t stream) {
  if (!GegluGemmSupports(args.in, args.out) || args.tokens <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) {
    return e;
  }
  const Tile* best = nullptr;
  double best_time = std::numeric_limits<double>::infinity();
  for (const Tile& tile : kTiles) {
    const double time = Time(args, tile, processors);
    if (time < best_time) best = &tile, best_time = time;
  }
  return best->launch(args, processors, stream);
}

}  // namespace piserve::kernels
