// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/split_tile.cuh"

namespace piserve::kernels::weight_gemm {

template cudaError_t LaunchSplit<208>(const SplitGemmArgs&, int, cudaStream_t);

}  // namespace piserve::kernels::weight_gemm
