// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "grpcpp/support/byte_buffer.h"
#include "piserve/v1/policy.pb.h"
#include "server/inference.h"

namespace piserve::server::rpc {

// Between the contract's messages and the server's own types.

// Bytes to message. INVALID_ARGUMENT as CheckWire says. `buffer` is emptied.
absl::StatusOr<std::shared_ptr<const v1::InferRequest>> ParseInferRequest(
    grpc::ByteBuffer* buffer);
absl::StatusOr<std::shared_ptr<const v1::InferStreamRequest>>
ParseInferStreamRequest(grpc::ByteBuffer* buffer);

// Message to bytes.
grpc::ByteBuffer Serialize(const google::protobuf::Message& message);

// A request whose views point into `observation`, which `storage` keeps alive.
// Leaves to the caller: identity, peer, received, deadline, bytes.
//
// Checks what can be judged without knowing the policy: lengths of ids, enum
// values, that noise is whole and finite, num_steps, and fields that are not
// acted on yet. INVALID_ARGUMENT with the field's path.
absl::StatusOr<InferenceRequest> ToInferenceRequest(
    const v1::ObservationRequest& observation,
    std::shared_ptr<const void> storage);

// The reply as the client of `request_id` sees it.
v1::InferResult ToInferResult(const InferenceReply& reply,
                              const std::string& request_id);

inline constexpr std::size_t kMaxIdBytes = 64;

}  // namespace piserve::server::rpc
