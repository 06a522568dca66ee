// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/tensor_index.h"
#include "model/checkpoint/weights.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// What a file's tensors say by themselves: pi05 (time_mlp_in) or pi0
// (state_proj), its vocabulary and its action_dim, the rest as released.
// Horizon and prompt limit are not in the weights: those of the released
// variant. FAILED_PRECONDITION if neither or both kinds are there.
absl::StatusOr<Variant> DetectVariant(const TensorIndex& index);

// Weights mapped from a file, each tensor in the dtype it is stored in (BF16
// and F32 may mix). The tensors must be exactly those of `variant`:
// FAILED_PRECONDITION with one line about the first one that is missing,
// unknown, or of another shape or dtype. Reads the whole file once, for the
// digest.
absl::StatusOr<std::unique_ptr<Weights>> MakeFileWeights(
    Safetensors file, const Variant& variant);

}  // namespace piserve::checkpoint
