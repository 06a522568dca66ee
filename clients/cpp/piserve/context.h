// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "grpcpp/client_context.h"

namespace piserve::client {

// `left` from now, as gRPC takes deadlines.
std::chrono::system_clock::time_point GrpcDeadline(absl::Duration left);

// Adds the credential, if there is one.
void SetCredential(const std::string& api_key, grpc::ClientContext* context);

// The trailer `grpc-retry-pushback-ms` of a finished call.
std::optional<std::string> Pushback(const grpc::ClientContext& context);

}  // namespace piserve::client
