// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/checkpoint/weights.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// The mixed 64-bit value of element `index` (docs/synthetic.md).
std::uint64_t SyntheticBits(std::uint64_t name_hash, std::uint64_t seed,
                            std::uint64_t index);

// FNV-1a 64.
std::uint64_t NameHash(std::string_view name);

// Mean and amplitude follow from the tensor's name and shape alone.
SyntheticRule SyntheticRuleOf(const TensorSpec& spec, std::uint64_t seed);

// One element in float32, before it is rounded to a file's dtype.
float SyntheticValue(const SyntheticRule& rule, std::uint64_t index);

// Rounds to the nearest bfloat16, ties to even. `value` is finite.
std::uint16_t RoundToBFloat16(float value);

// Generates one tensor: about 10 s for 3.5 B elements on one core.
Tensor MakeSyntheticTensor(const TensorSpec& spec, std::uint64_t seed,
                           DType dtype);

// Weights that are a pure function of (variant, seed), bit for bit the same
// anywhere; nothing on disk. Find generates the tensor anew at each call.
// FAILED_PRECONDITION if CheckVariant refuses the variant.
absl::StatusOr<std::unique_ptr<Weights>> MakeSyntheticWeights(
    const Variant& variant, std::uint64_t seed, DType dtype = DType::kBFloat16);

}  // namespace piserve::checkpoint
