// SPDX-License-Identifier: Apache-2.0
#include "model/engine/cuda_status.h"

#include "absl/strings/str_cat.h"

namespace piserve::engine {

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(what, ": ", cudaGetErrorString(error)));
}

}  // namespace piserve::engine
