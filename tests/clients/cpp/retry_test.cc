// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/retry.h"

#include <gtest/gtest.h>

#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

constexpr absl::Duration kPlenty = absl::Seconds(5);

absl::Status WithRetryInfo(grpc::StatusCode code, absl::Duration delay) {
  return FromGrpc(RefusalWithRetry(code, delay));
}

TEST(RetryDelay, NothingButUnavailableAndAskedForExhaustionIsRetried) {
  for (int code = 1; code <= 16; ++code) {
    const auto c = static_cast<absl::StatusCode>(code);
    const bool want = c == absl::StatusCode::kUnavailable;
    EXPECT_EQ(RetryDelay(absl::Status(c, ""), {}, kPlenty).has_value(), want)
        << code;
  }
  EXPECT_EQ(RetryDelay(WithRetryInfo(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                     absl::Milliseconds(30)),
                       {}, kPlenty),
            absl::Milliseconds(30));
  EXPECT_FALSE(RetryDelay(
      WithRetryInfo(grpc::StatusCode::INTERNAL, absl::Milliseconds(30)), {},
      kPlenty));
}

TEST(RetryDelay, PushbackStandsAboveRetryInfo) {
  const absl::Status status =
      WithRetryInfo(grpc::StatusCode::UNAVAILABLE, absl::Milliseconds(30));
  EXPECT_EQ(RetryDelay(status, "250", kPlenty), absl::Milliseconds(250));
  EXPECT_EQ(RetryDelay(status, "0", kPlenty), absl::ZeroDuration());
}

TEST(RetryDelay, NegativeOrUnreadablePushbackForbidsARetry) {
  const absl::Status status = absl::UnavailableError("");
  EXPECT_FALSE(RetryDelay(status, "-1", kPlenty));
  EXPECT_FALSE(RetryDelay(status, "soon", kPlenty));
  EXPECT_FALSE(RetryDelay(status, "", kPlenty));
}

TEST(RetryDelay, AWaitThatReachesTheDeadlineForbidsARetry) {
  const absl::Status status = absl::UnavailableError("");
  EXPECT_TRUE(RetryDelay(status, "99", absl::Milliseconds(100)));
  EXPECT_FALSE(RetryDelay(status, "100", absl::Milliseconds(100)));
  EXPECT_FALSE(RetryDelay(status, "0", absl::ZeroDuration()));
}

}  // namespace
}  // namespace piserve::client
