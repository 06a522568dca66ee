// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/gelu_tile.cuh"

namespace piserve::kernels::weight_gemm {

template cudaError_t LaunchGelu<128, 208>(const GeluGemmArgs&, int,
                                          cudaStream_t);

}  // namespace piserve::kernels::weight_gemm
