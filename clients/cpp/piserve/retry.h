// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace piserve::client {

// How long to wait before the one retry of a call that ended in `status` with
// `left` of its budget, or nothing if it must not be tried again.
//
//   pushback  value of the trailer `grpc-retry-pushback-ms`, if there was one;
//             stands above RetryInfo. Negative or not a number: no retry.
//
// Only UNAVAILABLE, and RESOURCE_EXHAUSTED that carries RetryInfo, are tried
// again, and only if the wait ends inside the budget. UNAVAILABLE that names no
// delay (a lost connection) waits 100 ms.
std::optional<absl::Duration> RetryDelay(
    const absl::Status& status, const std::optional<std::string>& pushback,
    absl::Duration left);

}  // namespace piserve::client
