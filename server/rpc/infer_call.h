// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/inference.h"
#include "server/rpc/policy_service.h"

namespace piserve::server::rpc {

// One unary Infer. Deletes itself when gRPC is done with it.
//
// Finish is called once, by whoever completes the request: Run for a refusal,
// else Inference's Done. Nothing touches the object after that but OnCancel and
// OnDone, which gRPC orders.
class InferCall final : public grpc::ServerUnaryReactor {
 public:
  // All borrowed until OnDone.
  InferCall(PolicyService& service, grpc::CallbackServerContext& context,
            grpc::ByteBuffer& response);

  // Call once, from the service's method: gRPC keeps the object until that
  // returns. Empties `request`.
  void Run(grpc::ByteBuffer& request);

  void OnCancel() override;
  void OnDone() override;

 private:
  absl::StatusOr<InferenceRequest> Read(grpc::ByteBuffer& request);
  void Start(InferenceRequest request);
  void Complete(absl::StatusOr<InferenceReply> reply);

  PolicyService& service_;
  grpc::CallbackServerContext& context_;
  grpc::ByteBuffer& response_;
  const absl::Time received_;
  absl::Duration parse_;
  std::string request_id_;
  absl::Time finished_;

  batching::Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
  Inference::Cancel cancel_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace piserve::server::rpc
