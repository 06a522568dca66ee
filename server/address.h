// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace piserve::server {

struct HostPort {
  std::string host;  // without brackets
  int port = 0;      // 0: a free one
};

// "127.0.0.1:80", "[::1]:80", "localhost:80", "0.0.0.0:0". INVALID_ARGUMENT for
// anything else; names are not resolved.
absl::StatusOr<HostPort> ParseAddress(absl::string_view address);

bool IsLoopback(const HostPort& address);

}  // namespace piserve::server
