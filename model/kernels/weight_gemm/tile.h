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
