// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace piserve::kernels {

// Fills out[0 .. count) with a synthetic tensor (docs/synthetic.md), bit for
// bit what the host makes. Bound by HBM writes.
cudaError_t LaunchSyntheticFill(std::uint64_t name_hash, std::uint64_t seed,
                                float mean, float amp, __nv_bfloat16* out,
                                long count, cudaStream_t stream);

}  // namespace piserve::kernels
