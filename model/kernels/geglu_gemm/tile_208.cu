// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/geglu_gemm/tile.cuh"

namespace piserve::kernels::geglu {

template cudaError_t LaunchTile<208>(const GegluGemmArgs&, int, cudaStream_t);

}  // namespace piserve::kernels::geglu
