// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "piserve/v1/policy.pb.h"
#include "server/inference.h"

namespace piserve::server::rpc {

inline constexpr std::size_t kMaxIdBytes = 64;

// Fills `message` from the bytes of `buffer`. INVALID_ARGUMENT as CheckWire
// says; `request_id` as there. Bytes become messages here and not in gRPC
// because gRPC answers INTERNAL, and ends a stream, where they are malformed.
absl::Status Parse(grpc::ByteBuffer& buffer, google::protobuf::Message* message,
                   std::string* request_id);

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
                              absl::string_view request_id);

}  // namespace piserve::server::rpc
