// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/rope_tile.cuh"

namespace piserve::kernels::weight_gemm {

template cudaError_t LaunchRope<112>(const RopeGemmArgs&, int, cudaStream_t);

}  // namespace piserve::kernels::weight_gemm
