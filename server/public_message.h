// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace piserve::server {

// True for what a string of a protobuf message may hold; no parser takes a
// message with other bytes in one.
bool IsUtf8(std::string_view text);

// `text` as at most 512 bytes of valid UTF-8.
std::string BoundedText(absl::string_view text);

// The message of a status as a client may see it, bounded likewise. Of codes
// whose message may come from a library, only the first line is shown, and
// nothing where that may hold a path: it is the log's.
std::string PublicMessage(const absl::Status& status);

}  // namespace piserve::server
