// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace piserve {

// A status with the two things that a client may act on: a stable reason
// (UPPER_SNAKE_CASE, never reworded) and the path of the field at fault
// ("images[1].data"). They travel as payloads of absl::Status and become
// google.rpc.ErrorInfo and google.rpc.BadRequest on the wire.
absl::Status WithReason(absl::Status status, absl::string_view reason);

// INVALID_ARGUMENT about one field. The message says what, got, wanted; the
// field's path is put before it.
absl::Status InvalidField(absl::string_view field, absl::string_view reason,
                          absl::string_view message);

std::optional<std::string> ReasonOf(const absl::Status& status);
std::optional<std::string> FieldOf(const absl::Status& status);

}  // namespace piserve
