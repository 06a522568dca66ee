// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::server::rpc {

// A refusal as clients see it:
//   ErrorInfo   always; domain "piserve"; reason = ReasonOf, else the code's
//               name; metadata = MetadataOf
//   BadRequest  if FieldOf is set
//   RetryInfo   if RetryAfterOf is set
//
// INTERNAL, UNKNOWN and DATA_LOSS may quote a library: only the first line of
// their message leaves the server, and nothing of it if it holds a path.

// For a unary call; OK gives OK. Details travel as google.rpc.Status.
grpc::Status ToGrpcStatus(const absl::Status& status);

// For one message of a stream; `status` is not OK.
v1::Error ToError(const absl::Status& status);

// Value of the `grpc-retry-pushback-ms` trailer, which retrying gRPC clients
// obey. Set exactly where RetryInfo is.
std::optional<std::string> RetryPushbackMs(const absl::Status& status);

}  // namespace piserve::server::rpc
