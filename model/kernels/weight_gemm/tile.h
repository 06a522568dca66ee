// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"
#include "model/kernels/weight_gemm/gelu_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"

namespace piserve::kernels::weight_gemm {

// Which tiles a cluster's two CTAs take: neighbouring tokens of the same
// weights, or neighbouring weights of the same tokens. The second may lie past
// the end.
enum class Pairs { kOfTokens, kOfWeights };

// Rounds in which `processors` multiprocessors compute the tiles of `rows`
// weight rows by `tokens` tokens, tile_rows by tile_tokens each.
constexpr int Waves(int rows, int tokens, int tile_rows, int tile_tokens,
                    int processors, Pairs pairs = Pairs::kOfTokens) {
  int down = CeilDiv(rows, tile_rows), across = CeilDiv(tokens, tile_tokens);
  int& paired = pairs == Pairs::kOfTokens ? across : down;
  paired = (paired + 1) / 2 * 2;
  return CeilDiv(down * across, processors);
}

// Whether such tiles make more than one wave on an H200, and waves that leave
// few multiprocessors idle.
constexpr bool FillsWaves(int rows, int tokens, int tile_rows, int tile_tokens,
                          Pairs pairs = Pairs::kOfTokens) {
  constexpr double kLeastFill = 0.9;  // of the waves' tiles
  const int waves =
      Waves(rows, tokens, tile_rows, tile_tokens, kTargetProcessors, pairs);
  const double places =
      1.0 * waves * kTargetProcessors * tile_rows * tile_tokens;
  return waves > 1 && 1.0 * rows * tokens >= kLeastFill * places;
}

// One kernel for tiles of kRows weight rows by kTokens tokens. Each is an
// object of its own: a minute of nvcc.
template <int kRows, int kTokens>
cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream);
template <int kRows, int kTokens>
cudaError_t LaunchGelu(const GeluGemmArgs& args, int processors,
                       cudaStream_t stream);
template <int kTokens>
cudaError_t LaunchSplit(const SplitGemmArgs& args, int processors,
                        cudaStream_t stream);

}  // namespace piserve::kernels::weight_gemm
