// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/weight_gemm/add_gemm.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"
#include "model/kernels/weight_gemm/gelu_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"

namespace piserve::kernels::weight_gemm {

// Rounds in which `processors` multiprocessors compute the tiles of `rows`
// weight rows by `tokens` tokens, tile_rows by tile_tokens each. A cluster
// takes two columns, whether or not there is a second one.
constexpr int Waves(int rows, int tokens, int tile_rows, int tile_tokens,
                    int processors) {
  const int pairs = (tokens + 2 * tile_tokens - 1) / (2 * tile_tokens);
  const int tiles = 2 * pairs * ((rows + tile_rows - 1) / tile_rows);
  return (tiles + processors - 1) / processors;
}

// How many clusters of neighbouring tokens are taken before the next weight
// rows: a round whose tiles lie in a square re-reads least from memory. The
// scheduler rounds tiles up to that many, both ways; so never so many that
// there would be rows beyond the last or one more round.
constexpr int Swizzle(int rows, int tokens, int tile_rows, int tile_tokens,
                      int processors) {
  const int waves = Waves(rows, tokens, tile_rows, tile_tokens, processors);
  for (int swizzle = 8; swizzle > 1; swizzle /= 2) {
    const int columns = 2 * swizzle * tile_tokens;
    const int padded = (tokens + columns - 1) / columns * columns;
    if (rows % (swizzle * tile_rows) == 0 &&
        Waves(rows, padded, tile_rows, tile_tokens, processors) == waves) {
      return swizzle;
    }
  }
  return 1;
}

// One kernel for tiles of kRows weight rows by kTokens tokens. Each is an
// object of its own: a minute of nvcc.
template <int kRows, int kTokens>
cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream);
template <int kTokens>
cudaError_t LaunchAdd(const AddGemmArgs& args, int processors,
                      cudaStream_t stream);
template <int kTokens>
cudaError_t LaunchGelu(const GeluGemmArgs& args, int processors,
                       cudaStream_t stream);
template <int kTokens>
cudaError_t LaunchSplit(const SplitGemmArgs& args, int processors,
                        cudaStream_t stream);

}  // namespace piserve::kernels::weight_gemm
