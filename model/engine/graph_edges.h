// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include "absl/status/status.h"

namespace piserve::engine {

// Makes every kernel of a captured graph wait for the end of those before it,
// where programmatic dependent launch would let it begin earlier. Before the
// graph is instantiated.
absl::Status WaitForWholeKernels(cudaGraph_t graph);

}  // namespace piserve::engine
