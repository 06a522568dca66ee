// SPDX-License-Identifier: Apache-2.0
#include "server/refusal.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "model/error.h"

namespace piserve::server {
namespace {

using batching::DropReason;
using batching::RejectReason;

constexpr absl::string_view kLaunched = "launched";  // key of metadata

constexpr absl::Duration kWarmUpRetry = absl::Seconds(1);
// 0 would say: elsewhere, at once.
constexpr absl::Duration kSoonestRetry = absl::Milliseconds(1);

constexpr const char* kDropReasons[] = {"EXPIRED",    "CANCELLED", "TOO_OLD",
                                        "SUPERSEDED", "NO_DEVICE", "SHUTDOWN"};
constexpr const char* kFailureReasons[] = {"LATE", "ANSWER_LOST",
                                           "NON_FINITE_OUTPUT", "WAVE_FAILED"};

absl::Status Unavailable(absl::string_view reason, absl::string_view message,
                         absl::Duration retry_after) {
  return WithRetryAfter(WithReason(absl::UnavailableError(message), reason),
                        retry_after);
}

absl::Status Full(absl::string_view bound, absl::string_view reason,
                  const batching::Rejection& rejection) {
  const absl::Status status = absl::ResourceExhaustedError(
      absl::StrCat("the queue is full in ", bound));
  return WithRetryAfter(
      WithMetadata(WithReason(status, reason), "bound", bound),
      std::max(rejection.retry_after, kSoonestRetry));
}

absl::Status WithPrediction(absl::Status status,
                            const batching::Rejection& rejection) {
  return WithMetadata(
      std::move(status), "predicted_us",
      absl::StrCat(absl::ToInt64Microseconds(rejection.predicted)));
}

template <typename Reasons>
bool Contains(const Reasons& reasons, absl::string_view reason) {
  return std::any_of(std::begin(reasons), std::end(reasons),
                     [&](const char* known) { return reason == known; });
}

}  // namespace

absl::Status WarmingUp() {
  return Unavailable("WARMING_UP", "the server is not ready yet", kWarmUpRetry);
}

absl::Status Draining() {
  return Unavailable("DRAINING", "the server is shutting down",
                     absl::ZeroDuration());
}

absl::Status DeviceFault() {
  return Unavailable("DEVICE_FAULT", "the device of this policy has failed",
                     absl::ZeroDuration());
}

absl::Status DeviceLost() {
  return WithMetadata(DeviceFault(), kLaunched, "true");
}

absl::Status PolicyRequired(int hosted) {
  return InvalidField("policy", "POLICY_REQUIRED",
                      absl::StrCat("got none, want one of the ", hosted,
                                   " that GetPolicyInfo lists"));
}

absl::Status UnknownPolicy(absl::string_view name) {
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "policy: got \"", absl::CHexEscape(name.substr(0, 64)),
                        "\", want one that GetPolicyInfo lists")),
                    "UNKNOWN_POLICY");
}

absl::Status DigestMismatch(const std::string& want) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "model_digest: got another one, want ", want)),
                    "MODEL_DIGEST_MISMATCH");
}

absl::Status StepsNotOffered(std::uint32_t got, const std::string& want) {
  return WithReason(absl::FailedPreconditionError(absl::StrCat(
                        "num_steps: got ", got, ", want one of ", want)),
                    "STEPS_NOT_OFFERED");
}

absl::Status Rejected(const batching::Rejection& rejection,
                      absl::Duration budget) {
  switch (rejection.reason) {
    case RejectReason::kRows:
      return Full("rows", "QUEUE_FULL", rejection);
    case RejectReason::kBytes:
      return Full("bytes", "QUEUE_FULL", rejection);
    case RejectReason::kPredictedTime:
      return Full("predicted time", "QUEUE_FULL", rejection);
    case RejectReason::kClientLimit:
      return Full("rows of this client", "CLIENT_LIMIT", rejection);
    case RejectReason::kDeadlinePast:
      return WithPrediction(WithReason(absl::DeadlineExceededError(
                                           "the deadline has already passed"),
                                       "DEADLINE_PAST"),
                            rejection);
    case RejectReason::kDeadlineUnreachable:
      return WithPrediction(
          WithReason(absl::DeadlineExceededError(absl::StrCat(
                         "deadline: got ", absl::FormatDuration(budget),
                         ", want at least ",
                         absl::FormatDuration(rejection.predicted))),
                     "DEADLINE_UNREACHABLE"),
          rejection);
    case RejectReason::kDraining:
      return Draining();
    case RejectReason::kUnhealthy:
      return DeviceFault();
  }
  return DeviceFault();
}

absl::Status Dropped(DropReason reason) {
  switch (reason) {
    case DropReason::kExpired:
      return WithReason(
          absl::DeadlineExceededError("the deadline passed in the queue"),
          "EXPIRED");
    case DropReason::kCancelled:
      return WithReason(absl::CancelledError("the client cancelled"),
                        "CANCELLED");
    case DropReason::kStale:
      return WithReason(
          absl::AbortedError("the observation grew older than its max_age_us"),
          "TOO_OLD");
    case DropReason::kSuperseded:
      return WithReason(
          absl::AbortedError("a newer observation of this robot came"),
          "SUPERSEDED");
    case DropReason::kNoExecutor:
      return Unavailable("NO_DEVICE", "no device is left for this policy",
                         absl::ZeroDuration());
    case DropReason::kShutdown:
      break;
  }
  return Unavailable("SHUTDOWN", "the server has shut down",
                     absl::ZeroDuration());
}

absl::Status DeadlineMissed(absl::Duration after, absl::Duration within) {
  return WithReason(
      absl::DeadlineExceededError(absl::StrCat(
          "the actions were ready after ", absl::FormatDuration(after),
          ", want them within ", absl::FormatDuration(within))),
      "LATE");
}

absl::Status DeadlineMet(absl::Duration after, absl::Duration within) {
  return within > absl::ZeroDuration() && after > within
             ? DeadlineMissed(after, within)
             : absl::OkStatus();
}

absl::Status NonFiniteOutput() {
  return WithReason(
      absl::InternalError("the policy gave actions that are not finite; they "
                          "are withheld"),
      "NON_FINITE_OUTPUT");
}

absl::Status AnswerLost(const absl::Status& cause) {
  return WithReason(
      absl::InternalError(absl::StrCat("the actions do not fit the robot (",
                                       absl::StatusCodeToString(cause.code()),
                                       "); they are withheld")),
      "ANSWER_LOST");
}

absl::Status RowFailed(const absl::Status& row) {
  const std::string reason = ReasonOf(row).value_or("");
  if (reason == "NON_FINITE_OUTPUT") return NonFiniteOutput();
  if (reason == "DEVICE_FAULT") return DeviceLost();
  if (absl::IsInvalidArgument(row) && !reason.empty()) return row;
  return WithReason(absl::InternalError("the policy could not run this row"),
                    "WAVE_FAILED");
}

bool IsDropReason(absl::string_view reason) {
  return Contains(kDropReasons, reason);
}

bool IsFailure(const absl::Status& status) {
  return Contains(kFailureReasons, ReasonOf(status).value_or("")) ||
         MetadataOf(status).contains(std::string(kLaunched));
}

}  // namespace piserve::server
