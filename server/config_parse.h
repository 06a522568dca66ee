// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/config.pb.h"

namespace piserve::server {

// Protobuf's text format. INVALID_ARGUMENT in one line: where, what is wrong
// there, and where a name was wanted, which there are.
absl::Status ParseConfigText(absl::string_view text,
                             config::ServerConfig& message);

}  // namespace piserve::server
