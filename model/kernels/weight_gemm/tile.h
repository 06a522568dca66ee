// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/weight_gemm/geglu_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"

namespace piserve::kernels::weight_gemm {

// One kernel for tiles of kRows weight rows by kTokens tokens. Each is an
// object of its own: a minute of nvcc.
template <int kRows, int kTokens>
cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream);
template <int kTokens>
cudaError_t LaunchSplit(const SplitGemmArgs& args, int processors,
                        cudaStream_t stream);

}  // namespace piserve::kernels::weight_gemm
