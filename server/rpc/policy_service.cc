// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/policy_service.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/rpc/codec.h"
#include "server/rpc/infer_call.h"
#include "server/rpc/infer_stream_call.h"
#include "server/rpc/status_codec.h"

namespace piserve::server::rpc {
namespace {

absl::StatusOr<v1::GetPolicyInfoResponse> Describe(
    const Backends& backends, const grpc::CallbackServerContext& context,
    grpc::ByteBuffer& bytes) {
  const auto identity = Authenticate(backends.authenticator, context);
  if (!identity.ok()) return identity.status();
  v1::GetPolicyInfoRequest request;
  std::string ignored;
  if (absl::Status s = Parse(bytes, &request, &ignored); !s.ok()) return s;
  // No default here: an empty name means all that the caller may use.
  if (absl::Status s = Authorize(*identity, request.policy(), ""); !s.ok()) {
    return s;
  }
  auto response = backends.directory.Describe(request.policy());
  if (!response.ok()) return response;
  v1::GetPolicyInfoResponse allowed;
  for (v1::PolicyInfo& info : *response->mutable_policies()) {
    if (identity->MayUse(info.name())) {
      *allowed.add_policies() = std::move(info);
    }
  }
  return allowed;
}

// gRPC makes the buffer for this call alone and never reads it again; emptying
// it after parsing halves what a waiting request holds.
grpc::ByteBuffer& Owned(const grpc::ByteBuffer* request) {
  return const_cast<grpc::ByteBuffer&>(*request);
}

}  // namespace

PolicyService::~PolicyService() = default;

void PolicyService::Drain() {
  batching::MutexLock lock(mutex_);
  state_ = ServiceState::kDraining;
  // Under the lock, so that none is deleted meanwhile: gRPC runs OnDone on
  // threads of its own, never inside Finish.
  for (InferStreamCall* stream : streams_) stream->Drain();
}

void PolicyService::WaitIdle(absl::Duration timeout) {
  const absl::Time until = backends_.clock.Now() + timeout;
  batching::MutexLock lock(mutex_);
  while (calls_ > 0) {
    const absl::Duration left = until - backends_.clock.Now();
    if (left <= absl::ZeroDuration()) return;
    idle_.WaitFor(mutex_, left);
  }
}

grpc::ServerUnaryReactor* PolicyService::Infer(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  auto* call = new InferCall(*this, *context, *response);
  call->Run(Owned(request));
  return call;
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>*
PolicyService::InferStream(grpc::CallbackServerContext* context) {
  auto* call = new InferStreamCall(*this, *context);
  call->Run();
  return call;
}

grpc::ServerUnaryReactor* PolicyService::GetPolicyInfo(
    grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
    grpc::ByteBuffer* response) {
  const absl::Time received = backends_.clock.Now();
  backends_.observer.Received(Method::kGetPolicyInfo);
  const auto info = Describe(backends_, *context, Owned(request));
  if (info.ok()) *response = Serialize(*info);
  backends_.observer.Completed(Method::kGetPolicyInfo, info.status(),
                               backends_.clock.Now() - received);
  auto* reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(info.status()));
  return reactor;
}

void PolicyService::CallBegan() {
  batching::MutexLock lock(mutex_);
  ++calls_;
}

void PolicyService::CallEnded() {
  batching::MutexLock lock(mutex_);
  if (--calls_ == 0) idle_.NotifyAll();
}

ServiceState PolicyService::StreamBegan(InferStreamCall* stream) {
  batching::MutexLock lock(mutex_);
  streams_.insert(stream);
  return state_;
}

void PolicyService::StreamEnded(InferStreamCall* stream) {
  batching::MutexLock lock(mutex_);
  streams_.erase(stream);
}

}  // namespace piserve::server::rpc
