// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "model/kernels/geglu_gemm/geglu_gemm.h"

namespace piserve::kernels::geglu {

// One kernel for tiles of kTokens tokens. Each is an object of its own: a
// minute of nvcc.
template <int kTokens>
cudaError_t LaunchTile(const GegluGemmArgs& args, int multiprocessors,
                       cudaStream_t stream);

}  // namespace piserve::kernels::geglu
