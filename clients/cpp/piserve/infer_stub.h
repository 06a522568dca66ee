// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/impl/codegen/proto_utils.h"
#include "grpcpp/support/byte_buffer.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// PolicyService.Infer for requests that are bytes already (WireObservation).
// Thread-safe.
class InferStub {
 public:
  explicit InferStub(std::shared_ptr<grpc::Channel> channel)
      : stub_(std::move(channel)) {}

  // Blocks until the answer or the context's deadline.
  absl::Status Call(const grpc::ByteBuffer& request,
                    grpc::ClientContext* context, v1::InferResponse* response);

  // Returns at once; `done` fires on a thread of gRPC's. All three pointers
  // must stay valid until then.
  void Start(const grpc::ByteBuffer* request, grpc::ClientContext* context,
             v1::InferResponse* response,
             std::function<void(absl::Status)> done);

 private:
  grpc::TemplatedGenericStub<grpc::ByteBuffer, v1::InferResponse> stub_;
};

}  // namespace piserve::client
