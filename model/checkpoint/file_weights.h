// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/tensor_index.h"
#include "model/checkpoint/weights.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// True for pi05 (time_mlp_in), false for pi0 (state_proj). FAILED_PRECONDITION
// if neither or both are there.
absl::StatusOr<bool> IsPi05(const TensorIndex& index);

// What a file's tensors say by themselves: pi05 or pi0, the vocabulary and
// action_dim; the rest is as released. Horizon and prompt limit are not in the
// weights: those of the released variant. FAILED_PRECONDITION if what tells it
// is not there.
absl::StatusOr<Variant> DetectVariant(const TensorIndex& index);

// Weights mapped from a file, each tensor in the dtype it is stored in (BF16
// and F32 may mix). The tensors must be exactly those of `variant`:
// FAILED_PRECONDITION with one line about the first one that is missing,
// unknown, or of another shape or dtype. Shares the ownership of the mapping.
// Reads the whole file once, for the digest.
absl::StatusOr<std::unique_ptr<Weights>> MakeFileWeights(
    const Safetensors& file, const Variant& variant);

}  // namespace piserve::checkpoint
