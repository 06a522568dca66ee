// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/add_tile.cuh"

namespace piserve::kernels::weight_gemm {

template cudaError_t LaunchAdd<208>(const AddGemmArgs&, int, cudaStream_t);

}  // namespace piserve::kernels::weight_gemm
