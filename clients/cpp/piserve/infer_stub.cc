// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/infer_stub.h"

#include <utility>

#include "clients/cpp/piserve/status.h"
#include "grpcpp/completion_queue.h"

namespace piserve::client {
namespace {

constexpr char kMethod[] = "/piserve.v1.PolicyService/Infer";

}  // namespace

absl::Status InferStub::Call(const grpc::ByteBuffer& request,
                             grpc::ClientContext* context,
                             v1::InferResponse* response) {
  grpc::CompletionQueue queue;
  const auto call = stub_.PrepareUnaryCall(context, kMethod, request, &queue);
  call->StartCall();
  grpc::Status status;
  call->Finish(response, &status, this);
  void* tag = nullptr;
  bool ok = false;
  queue.Next(&tag, &ok);
  queue.Shutdown();
  return FromGrpc(status);
}

void InferStub::Start(const grpc::ByteBuffer* request,
                      grpc::ClientContext* context, v1::InferResponse* response,
                      std::function<void(absl::Status)> done) {
  stub_.UnaryCall(context, kMethod, {}, request, response,
                  [done = std::move(done)](const grpc::Status& status) {
                    done(FromGrpc(status));
                  });
}

}  // namespace piserve::client
