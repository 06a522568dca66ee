// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_call.h"

#include <memory>
#include <utility>

#include "server/rpc/codec.h"
#include "server/rpc/status_codec.h"

namespace piserve::server::rpc {

InferCall::InferCall(PolicyService& service,
                     grpc::CallbackServerContext& context,
                     grpc::ByteBuffer& response)
    : service_(service),
      context_(context),
      response_(response),
      received_(service.backends_.clock.Now()) {
  service_.CallBegan();
  service_.backends_.observer.Received(Method::kInfer);
}

void InferCall::Run(grpc::ByteBuffer& request) {
  auto admitted = Read(request);
  request.Clear();
  if (!admitted.ok()) {
    Complete(admitted.status());
    return;
  }
  parse_ = service_.backends_.clock.Now() - received_;
  service_.backends_.observer.Parsed(Method::kInfer, parse_);
  Start(*std::move(admitted));
}

absl::StatusOr<InferenceRequest> InferCall::Read(grpc::ByteBuffer& request) {
  const Backends& backends = service_.backends_;
  auto identity = Authenticate(backends.authenticator, context_);
  if (!identity.ok()) return identity.status();
  if (absl::Status s = backends.directory.Availability(); !s.ok()) return s;
  Arrival arrival{.identity = *std::move(identity),
                  .peer = PeerAddress(context_),
                  .received = received_,
                  .deadline = DeadlineOf(context_, backends.clock),
                  .bytes = request.Length()};
  auto message = std::make_shared<v1::InferRequest>();
  if (absl::Status s = Parse(request, message.get(), &request_id_); !s.ok()) {
    return s;
  }
  return Admit(backends, arrival, message->observation(), message);
}

void InferCall::Start(InferenceRequest request) {
  Inference::Cancel cancel = service_.backends_.inference.Start(
      std::move(request), [this](absl::StatusOr<InferenceReply> reply) {
        Complete(std::move(reply));
      });
  {
    batching::MutexLock lock(mutex_);
    if (!cancelled_) {
      cancel_ = std::move(cancel);
      return;
    }
  }
  cancel();
}

void InferCall::Complete(absl::StatusOr<InferenceReply> reply) {
  const Backends& backends = service_.backends_;
  finished_ = backends.clock.Now();
  reply = NotAfterDeadline(std::move(reply), received_, finished_);
  if (reply.ok()) {
    reply->stages.insert(reply->stages.begin(), StageDuration{"parse", parse_});
    v1::InferResponse response;
    *response.mutable_result() = ToInferResult(*reply, request_id_);
    response_ = Serialize(response);
  } else if (const auto pushback = RetryPushbackMs(reply.status())) {
    context_.AddTrailingMetadata("grpc-retry-pushback-ms", *pushback);
  }
  backends.observer.Completed(Method::kInfer, reply.status(),
                              finished_ - received_);
  Finish(ToGrpcStatus(reply.status()));
}

void InferCall::OnCancel() {
  Inference::Cancel cancel;
  {
    batching::MutexLock lock(mutex_);
    cancelled_ = true;
    cancel = std::move(cancel_);
  }
  if (cancel) cancel();
}

void InferCall::OnDone() {
  const Backends& backends = service_.backends_;
  backends.observer.Sent(Method::kInfer, backends.clock.Now() - finished_);
  service_.CallEnded();
  delete this;
}

}  // namespace piserve::server::rpc
