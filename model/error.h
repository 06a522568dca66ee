// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

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

// A number or a name that belongs to the refusal, e.g. "predicted_us"; it
// becomes metadata of the ErrorInfo.
absl::Status WithMetadata(absl::Status status, absl::string_view key,
                          absl::string_view value);

// When it is worth trying again, counted from the answer; becomes
// google.rpc.RetryInfo. Zero: at once, at another server.
absl::Status WithRetryAfter(absl::Status status, absl::Duration retry_after);

std::optional<std::string> ReasonOf(const absl::Status& status);
std::optional<std::string> FieldOf(const absl::Status& status);
std::map<std::string, std::string> MetadataOf(const absl::Status& status);
std::optional<absl::Duration> RetryAfterOf(const absl::Status& status);

}  // namespace piserve
