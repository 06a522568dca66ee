// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "absl/status/status.h"
#include "model/policy.h"
#include "model/variant.h"

namespace piserve {

// What every policy checks about a row, before it computes and after.

// INVALID_ARGUMENT if its token count or a token is outside the variant.
absl::Status CheckRow(const Variant& variant, const SlotRow& row);

// INTERNAL with reason NON_FINITE_OUTPUT.
absl::Status CheckFinite(std::span<const float> actions);

// Whatever was computed, nobody shall mistake it for actions: NaN throughout.
void Withhold(std::span<float> actions);

// INTERNAL with reason DEVICE_FAULT.
absl::Status DeviceFault(absl::string_view what);

}  // namespace piserve
