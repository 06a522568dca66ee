// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/weight_gemm/geglu_gemm.h"

namespace piserve::kernels::weight_gemm::pairs {

// LaunchGegluGemm by tiles of 256 weight rows by 192 tokens.
cudaError_t LaunchGeglu(const GegluGemmArgs& args, int processors,
                        cudaStream_t stream);

}  // namespace piserve::kernels::weight_gemm::pairs
