// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/gelu.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels::weight_gemm {

// gelu_tanh(gate) * up of two tokens: of a thread's sums those from i on, the
// gates' and then the ups' (geglu_gemm.h), whichever tiles they are of.
template <typename Sums>
__device__ __forceinline__ std::uint32_t GatedPair(const Sums& sums, int i) {
  return PackPair(FastGeluTanh(sums[i]) * sums[i + 2],
                  FastGeluTanh(sums[i + 1]) * sums[i + 3]);
}

}  // namespace piserve::kernels::weight_gemm
