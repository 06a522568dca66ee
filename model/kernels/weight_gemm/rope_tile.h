// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/weight_gemm/rope_gemm.h"

namespace piserve::kernels::weight_gemm {

// One kernel for tiles of half a head by kTokens tokens, an object of its own.
template <int kTokens>
cudaError_t LaunchRope(const RopeGemmArgs& args, int processors,
                       cudaStream_t stream);

}  // namespace piserve::kernels::weight_gemm
