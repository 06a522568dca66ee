// SPDX-License-Identifier: Apache-2.0
#include "model/row_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/error.h"

namespace piserve {

absl::Status CheckRow(const Variant& variant, const SlotRow& row) {
  const int count = *row.token_count;
  if (count < 1 || count > variant.max_token_len) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tokens: got ", count, ", want 1 to ", variant.max_token_len));
  }
  for (int i = 0; i < count; ++i) {
    if (row.tokens[i] >= 0 && row.tokens[i] < variant.vocab) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("tokens[", i, "]: got ", row.tokens[i], ", want 0 to ",
                     variant.vocab - 1));
  }
  return absl::OkStatus();
}

absl::Status CheckFinite(std::span<const float> actions) {
  for (std::size_t i = 0; i < actions.size(); ++i) {
    if (std::isfinite(actions[i])) continue;
    return WithReason(
        absl::InternalError(absl::StrCat("actions: element ", i, " is ",
                                         actions[i], ", want finite")),
        "NON_FINITE_OUTPUT");
  }
  return absl::OkStatus();
}

void Withhold(std::span<float> actions) {
  std::fill(actions.begin(), actions.end(),
            std::numeric_limits<float>::quiet_NaN());
}

absl::Status DeviceFault(absl::string_view what) {
  return WithReason(absl::InternalError(what), "DEVICE_FAULT");
}

}  // namespace piserve
