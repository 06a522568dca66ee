// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace piserve::engine {

// OK, or INTERNAL with what CUDA says about `what`.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

}  // namespace piserve::engine
