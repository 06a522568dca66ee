// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "piserve/v1/policy.grpc.pb.h"
#include "server/rpc/intake.h"

namespace piserve::server::rpc {

class InferStreamCall;

enum class ServiceState { kServing, kDraining };

// Every method takes bytes rather than messages, because malformed ones must
// get a status of ours and must not end a stream (codec.h, Parse).
using RawPolicyService = v1::PolicyService::WithRawCallbackMethod_Infer<
    v1::PolicyService::WithRawCallbackMethod_InferStream<
        v1::PolicyService::WithRawCallbackMethod_GetPolicyInfo<
            v1::PolicyService::Service>>>;

// piserve.v1.PolicyService on gRPC's callback API: no thread of gRPC's ever
// waits here. Register it with one server; must outlive that server.
//
// Every request that Received was reported for gets exactly one final status,
// and Completed is reported just before it is handed to gRPC.
class PolicyService final : public RawPolicyService {
 public:
  explicit PolicyService(Backends backends) : backends_(backends) {}
  ~PolicyService() override;

  // Streams end (UNAVAILABLE, reason DRAINING) as soon as nothing is
  // outstanding on them. That new requests are refused is the directory's word.
  void Drain();

  // Waits until no call is left, `timeout` at the longest.
  void WaitIdle(absl::Duration timeout);

  grpc::ServerUnaryReactor* Infer(grpc::CallbackServerContext* context,
                                  const grpc::ByteBuffer* request,
                                  grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* InferStream(
      grpc::CallbackServerContext* context) override;
  grpc::ServerUnaryReactor* GetPolicyInfo(grpc::CallbackServerContext* context,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  friend class InferCall;
  friend class InferStreamCall;

  void CallBegan();
  void CallEnded();
  ServiceState StreamBegan(InferStreamCall* stream);
  void StreamEnded(InferStreamCall* stream);

  const Backends backends_;
  batching::Mutex mutex_;
  batching::CondVar idle_;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;  // streams included
  ServiceState state_ ABSL_GUARDED_BY(mutex_) = ServiceState::kServing;
  std::unordered_set<InferStreamCall*> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace piserve::server::rpc
