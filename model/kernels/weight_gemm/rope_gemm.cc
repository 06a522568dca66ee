// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/rope_gemm.h"

#include <limits>

#include "model/kernels/weight_gemm/rope_tile.h"
#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels {
namespace {

constexpr int kTileRows = kRopePairHead / 2;  // of weights

struct Tile {
  int tokens;
  // Work that a full tile gets done, TFLOP/s on one H200 if all its
  // multiprocessors have one, as GeGLU's tiles of this shape.
  double rate;
  cudaError_t (*launch)(const RopeGemmArgs&, int, cudaStream_t);
};

constexpr Tile kTiles[] = {
    {208, 700, weight_gemm::LaunchRope<208>},
    {112, 560, weight_gemm::LaunchRope<112>},
};

// How long the busiest multiprocessor computes, in units of its own.
double Time(const RopeScatterArgs& to, const Tile& tile, int processors) {
  const int columns = (to.rows * to.seq + tile.tokens - 1) / tile.tokens;
  const int tiles = columns * ((to.heads + 2) * kRopePairHead / kTileRows);
  const int waves = (tiles + processors - 1) / processors;
  return waves * tile.tokens / tile.rate;
}

}  // namespace

bool RopeGemmSupports(int in, int heads, int kv_heads, int head_dim) {
  return in > 0 && in % 64 == 0 && heads >= 0 && kv_heads == 1 &&
         head_dim == kRopePairHead;
}

cudaError_t LaunchRopeGemm(const RopeGemmArgs& args, cudaStream_t stream) {
  const RopeScatterArgs& to = args.to;
  if (!RopeGemmSupports(args.in, to.heads, to.kv_heads, to.head_dim) ||
      to.rows <= 0 || to.seq <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = weight_gemm::Processors(&processors); e != cudaSuccess) {
    return e;
  }
  const Tile* best = nullptr;
  double best_time = std::numeric_limits<double>::infinity();
  for (const Tile& tile : kTiles) {
    const double time = Time(to, tile, processors);
    if (time < best_time) best = &tile, best_time = time;
  }
  return best->launch(args, processors, stream);
}

}  // namespace piserve::kernels
