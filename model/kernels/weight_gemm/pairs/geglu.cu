// SPDX-License-Identifier: Apache-2.0
#include <numeric>

#include "model/kernels/weight_gemm/pairs/geglu.cuh"
#include "model/kernels/weight_gemm/pairs/geglu.h"
#include "model/kernels/weight_gemm/pairs/kernel.cuh"

namespace piserve::kernels::weight_gemm::pairs {
namespace {

constexpr int kTokens = 192;
constexpr int kBand = 16;  // weight tiles: L2 gives less, and that takes power
using S = GegluShape<kTokens>;

struct Shared {
  Ring<S> ring;
};

struct Params {
  Product product;
  GatedOutput output;
};

__global__ void __launch_bounds__(kThreads, 1)
    GegluKernel(const __grid_constant__ Params p) {
  extern __shared__ char raw[];
  Ring<S>& ring = AlignShared<Shared>(raw).ring;
  RunRoles(
      ring, [&] { Producer<S>(p.product, ring).Run(); },
      [&](int group) {
        Place<S> place;
        ForEachTile<S>(p.product, [&](const Tile& tile) {
          Sums<S> sums;
          MultiplyTile<S>(p.product, ring, group, place, sums);
          StoreGated<kTokens>(p.output, tile, sums);
        });
      });
}

}  // namespace

cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream) {
  static_assert(kGegluTileRows == kRows);
  Params p;
  p.output = {.y = args.y, .tokens = args.tokens, .out = args.out};
  if (cudaError_t e =
          Describe<S>({.w = args.w,
                       .x = args.x,
                       .rows = 2 * args.out,
                       .tokens = args.tokens,
                       .in = args.in,
                       .band = std::gcd(2 * args.out / kRows, kBand)},
                      &p.product);
      e != cudaSuccess) {
    return e;
  }
  return LaunchPairs<Shared>(GegluKernel, p, processors, stream);
}

}  // namespace piserve::kernels::weight_gemm::pairs
