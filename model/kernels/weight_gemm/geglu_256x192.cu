// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/geglu_tile.cuh"

namespace piserve::kernels::weight_gemm {

template cudaError_t LaunchGeglu<256, 192>(const GegluGemmArgs&, int,
                                           cudaStream_t);

}  // namespace piserve::kernels::weight_gemm
