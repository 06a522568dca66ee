// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "batching/admission.h"
#include "batching/observer.h"

namespace piserve::server {

// Every way in which the server itself says no, each with its stable reason
// (docs/contract.md, "Bad input"). Clients act on reasons; they are never
// reworded.

// UNAVAILABLE.
absl::Status WarmingUp();
absl::Status Draining();
absl::Status DeviceFault();
absl::Status DeviceLost();  // the same, under a wave that was launched

// INVALID_ARGUMENT about the field `policy`: several are hosted, none is named.
absl::Status PolicyRequired(int hosted);

// NOT_FOUND.
absl::Status UnknownPolicy(absl::string_view name);

// FAILED_PRECONDITION.
absl::Status DigestMismatch(const std::string& want);
absl::Status StepsNotOffered(std::uint32_t got, const std::string& want);

// Not let in: RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED or UNAVAILABLE.
// `budget` is what the deadline leaves, for the message.
absl::Status Rejected(const batching::Rejection& rejection,
                      absl::Duration budget);

// Let in, but ended without being launched.
absl::Status Dropped(batching::DropReason reason);

// DEADLINE_EXCEEDED: computed, but ready only `after` the request's receipt,
// later than its deadline.
absl::Status DeadlineMissed(absl::Duration after, absl::Duration within);

// OK, or that, for actions that were served under a deadline of `within` and
// are ready `after` the request's receipt. A `within` of 0: under none.
absl::Status DeadlineMet(absl::Duration after, absl::Duration within);

// INTERNAL, actions withheld.
absl::Status NonFiniteOutput();

// INTERNAL: the actions did not fit what the pipeline expects; nothing of
// `cause` is shown.
absl::Status AnswerLost(const absl::Status& cause);

// The status of one row of a wave as a client should see it: a device's fault
// becomes UNAVAILABLE, so that the client goes elsewhere; a row's own stays.
absl::Status RowFailed(const absl::Status& row);

// Did the request end after it was let in, but before it was launched?
bool IsDropReason(absl::string_view reason);

// Did the request end after it was launched?
bool IsFailure(const absl::Status& status);

}  // namespace piserve::server
