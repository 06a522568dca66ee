// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/retry.h"

#include <cstdint>

#include "absl/strings/numbers.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::client {
namespace {

constexpr absl::Duration kReconnectDelay = absl::Milliseconds(100);

}  // namespace

std::optional<absl::Duration> RetryDelay(
    const absl::Status& status, const std::optional<std::string>& pushback,
    absl::Duration left) {
  const std::optional<absl::Duration> asked = RetryAfter(status);
  const bool retryable = absl::IsUnavailable(status) ||
                         (absl::IsResourceExhausted(status) && asked);
  if (!retryable) return std::nullopt;
  absl::Duration delay = asked.value_or(kReconnectDelay);
  if (pushback.has_value()) {
    std::int64_t ms = 0;
    if (!absl::SimpleAtoi(*pushback, &ms) || ms < 0) return std::nullopt;
    delay = absl::Milliseconds(ms);
  }
  if (delay >= left) return std::nullopt;
  return delay;
}

}  // namespace piserve::client
