// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/status.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// Errors are absl::Status whose payloads are the google.rpc details that the
// server sent, under their type URLs. The accessors below read them.

// google.rpc.ErrorInfo.reason, stable and made for programs: "QUEUE_FULL".
// Empty if the error carries none.
std::string ErrorReason(const absl::Status& status);

// Path of the first field that google.rpc.BadRequest names: "images[1].data".
// Empty if the error carries none.
std::string ErrorField(const absl::Status& status);

// How long the server asks to wait before trying again (google.rpc.RetryInfo).
std::optional<absl::Duration> RetryAfter(const absl::Status& status);

// Reasons of errors that the client itself makes.
inline constexpr char kReasonLateReply[] = "LATE_REPLY";
inline constexpr char kReasonBadReply[] = "BAD_REPLY";
inline constexpr char kReasonInvalidObservation[] = "INVALID_OBSERVATION";
inline constexpr char kReasonTooOldAtClient[] = "TOO_OLD_AT_CLIENT";
inline constexpr char kReasonModelChanged[] = "MODEL_CHANGED";
inline constexpr char kReasonCamerasMismatch[] = "CAMERAS_MISMATCH";
inline constexpr char kReasonStateMismatch[] = "STATE_MISMATCH";
inline constexpr char kReasonActionMismatch[] = "ACTION_MISMATCH";
inline constexpr char kReasonModelDigestMismatch[] = "MODEL_DIGEST_MISMATCH";
inline constexpr char kReasonPreprocessingMismatch[] = "PREPROCESSING_MISMATCH";

// The same status with an ErrorInfo that says `reason`.
absl::Status WithReason(absl::Status status, absl::string_view reason);

// INVALID_ARGUMENT, reason INVALID_OBSERVATION, about `field`.
absl::Status InvalidObservation(absl::string_view field,
                                absl::string_view message);

// From the wire, details included: unary calls and messages of a stream. Where
// the server said nothing the message tells what its code means. A call that
// ended in CANCELLED without a reason reads as UNAVAILABLE: gRPC's own end of
// what a server that stops has not read whole. Calls that this client cancels
// are over for their callers before.
absl::Status FromGrpc(const grpc::Status& status);
absl::Status FromWire(const v1::Error& error);

}  // namespace piserve::client
