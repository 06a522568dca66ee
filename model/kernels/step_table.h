// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

namespace piserve::kernels {

// Values that differ from one denoising step to the next, while one captured
// graph serves them all: row *step of a table in device memory. A null `step`
// means the first row.
struct StepTable {
  const float* base = nullptr;  // null: no values
  const int* step = nullptr;
  long stride = 0;  // floats from one step's row to the next

  __device__ const float* Row() const {
    return step == nullptr ? base : base + *step * stride;
  }
};

}  // namespace piserve::kernels
