// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/infer_stream_call.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "server/refusal.h"
#include "server/rpc/codec.h"
#include "server/rpc/status_codec.h"

namespace piserve::server::rpc {
namespace {

// When a client with a full stream may try again: about a wave's time.
constexpr absl::Duration kFullStreamRetry = absl::Milliseconds(50);

absl::Status Draining() {
  return WithRetryAfter(
      WithReason(absl::UnavailableError("the server is draining, and nothing "
                                        "is outstanding on this stream"),
                 "DRAINING"),
      absl::ZeroDuration());
}

absl::Time StreamDeadline(const v1::InferStreamRequest& message,
                          absl::Time received) {
  if (message.timeout_us() == 0) return absl::InfiniteFuture();
  return received +
         absl::Microseconds(static_cast<std::int64_t>(std::min<std::uint64_t>(
             message.timeout_us(), std::numeric_limits<std::int64_t>::max())));
}

}  // namespace

InferStreamCall::InferStreamCall(PolicyService& service,
                                 grpc::CallbackServerContext& context)
    : service_(service), context_(context) {
  service_.CallBegan();
}

void InferStreamCall::Run() {
  auto identity = Authenticate(service_.backends_.authenticator, context_);
  if (!identity.ok()) {
    {
      batching::MutexLock lock(mutex_);
      finished_ = true;
    }
    Finish(ToGrpcStatus(identity.status()));
    return;
  }
  identity_ = *std::move(identity);
  if (service_.StreamBegan(this) == ServiceState::kDraining) {
    Drain();
    return;
  }
  ReadNext();
}

void InferStreamCall::Drain() {
  {
    batching::MutexLock lock(mutex_);
    draining_ = true;
  }
  Advance();
}

void InferStreamCall::OnReadDone(bool ok) {
  if (ok && MayTake()) Take(incoming_);
  {
    batching::MutexLock lock(mutex_);
    taking_ = false;
    // Only now: until then a write's end must not start the next read.
    reading_ = false;
    if (!ok) reads_ended_ = true;
  }
  ReadNext();
  Advance();
}

bool InferStreamCall::MayTake() {
  batching::MutexLock lock(mutex_);
  taking_ = !finished_;
  return taking_;
}

void InferStreamCall::Take(grpc::ByteBuffer& bytes) {
  const Backends& backends = service_.backends_;
  backends.observer.Received(Method::kInferStream);
  Request request{.received = backends.clock.Now()};
  auto admitted = Read(bytes, request);
  bytes.Clear();
  if (admitted.ok()) {
    if (absl::Status s = Register(request.id); !s.ok()) admitted = s;
  }
  if (!admitted.ok()) {
    Unsent refusal = Refusal(request, admitted.status());
    batching::MutexLock lock(mutex_);
    Queue(std::move(refusal));
    return;
  }
  request.parse = backends.clock.Now() - request.received;
  backends.observer.Parsed(Method::kInferStream, request.parse);
  Start(*std::move(admitted), std::move(request));
}

absl::StatusOr<InferenceRequest> InferStreamCall::Read(grpc::ByteBuffer& bytes,
                                                       Request& request) {
  const Backends& backends = service_.backends_;
  Arrival arrival{.identity = identity_,
                  .peer = PeerAddress(context_),
                  .received = request.received,
                  .bytes = bytes.Length()};
  auto message = std::make_shared<v1::InferStreamRequest>();
  const absl::Status parsed = Parse(bytes, message.get(), &request.id);
  // An answer cannot be told apart by an id like this one; it has none then.
  if (request.id.size() > kMaxIdBytes) request.id.clear();
  if (!parsed.ok()) {
    const absl::Status available = backends.directory.Availability();
    return available.ok() ? parsed : available;
  }
  arrival.deadline = StreamDeadline(*message, request.received);
  const v1::ObservationRequest& observation = message->observation();
  auto admitted = Admit(backends, arrival, observation, message);
  if (admitted.ok() && observation.request_id().empty()) {
    return InvalidField("request_id", "MISSING",
                        "got none, want one on a stream");
  }
  return admitted;
}

absl::Status InferStreamCall::Register(const std::string& id) {
  batching::MutexLock lock(mutex_);
  if (in_flight_.contains(id)) {
    return InvalidField("request_id", "DOUBLED",
                        "got one that is in flight on this stream, want a "
                        "unique one");
  }
  if (in_flight_.size() >= kMaxInFlight) {
    return WithRetryAfter(
        WithReason(absl::ResourceExhaustedError(absl::StrCat(
                       "got one request more than the ", kMaxInFlight,
                       " that may be in flight on one stream")),
                   "STREAM_FULL"),
        kFullStreamRetry);
  }
  in_flight_.emplace(id, nullptr);
  return absl::OkStatus();
}

void InferStreamCall::Start(InferenceRequest inference, Request request) {
  const std::string id = request.id;
  Inference::Cancel cancel = service_.backends_.inference.Start(
      std::move(inference), [this, request = std::move(request)](
                                absl::StatusOr<InferenceReply> reply) {
        Complete(request, std::move(reply));
      });
  {
    batching::MutexLock lock(mutex_);
    // Ids return only through a later read, so this is ours or gone.
    const auto it = in_flight_.find(id);
    if (it == in_flight_.end()) return;
    if (!cancelled_) {
      it->second = std::move(cancel);
      return;
    }
  }
  cancel();
}

void InferStreamCall::Complete(const Request& request,
                               absl::StatusOr<InferenceReply> reply) {
  reply = NotAfterDeadline(std::move(reply), request.received,
                           service_.backends_.clock.Now());
  Unsent answer;
  if (reply.ok()) {
    reply->stages.insert(reply->stages.begin(),
                         StageDuration{"parse", request.parse});
    v1::InferStreamResponse response;
    response.set_request_id(request.id);
    *response.mutable_result() = ToInferResult(*reply, request.id);
    answer = Answer(request, absl::OkStatus(), response);
    answer.served = reply->deadline_served;
  } else {
    answer = Refusal(request, reply.status());
  }
  Next next;
  {
    batching::MutexLock lock(mutex_);
    in_flight_.erase(request.id);
    Queue(std::move(answer));
    next = DecideNext();
  }
  // With nothing to do here the object may be gone by now.
  if (next.any()) Do(next);
}

InferStreamCall::Unsent InferStreamCall::Answer(
    const Request& request, absl::Status status,
    const v1::InferStreamResponse& response) const {
  return {.request = request,
          .status = std::move(status),
          .bytes = Serialize(response),
          .ready = service_.backends_.clock.Now()};
}

InferStreamCall::Unsent InferStreamCall::Refusal(
    const Request& request, const absl::Status& status) const {
  v1::InferStreamResponse response;
  response.set_request_id(request.id);
  *response.mutable_error() = ToError(status);
  return Answer(request, status, response);
}

void InferStreamCall::Queue(Unsent answer) {
  if (cancelled_) return Conclude(answer);
  unsent_.push_back(std::move(answer));
}

void InferStreamCall::Conclude(Unsent& answer) const {
  const Backends& backends = service_.backends_;
  const absl::Duration elapsed = backends.clock.Now() - answer.request.received;
  if (answer.status.ok()) {
    const absl::Status met = DeadlineMet(elapsed, answer.served);
    if (!met.ok()) answer = Refusal(answer.request, met);
  }
  backends.observer.Completed(Method::kInferStream, answer.status, elapsed);
}

void InferStreamCall::DropUnsent() {
  const std::size_t written = writing_ ? 1 : 0;
  while (unsent_.size() > written) {
    Conclude(unsent_.back());
    unsent_.pop_back();
  }
}

void InferStreamCall::ReadNext() {
  {
    batching::MutexLock lock(mutex_);
    if (reading_ || reads_ended_ || cancelled_ || finished_ ||
        in_flight_.size() + unsent_.size() >= kMaxPending) {
      return;
    }
    reading_ = true;
  }
  StartRead(&incoming_);
}

InferStreamCall::Next InferStreamCall::DecideNext() {
  if (writing_ || finished_) return {};
  if (!unsent_.empty()) {
    writing_ = true;
    Conclude(unsent_.front());
    return {.write = &unsent_.front().bytes};  // stays there until popped
  }
  const bool no_more = reads_ended_ || cancelled_ || draining_;
  if (!no_more || taking_ || !in_flight_.empty()) return {};
  finished_ = true;
  if (cancelled_) return {.finish = absl::CancelledError("the client is gone")};
  return {.finish = reads_ended_ ? absl::OkStatus() : Draining()};
}

void InferStreamCall::Do(const Next& next) {
  if (next.write != nullptr) {
    StartWrite(next.write);
  } else if (next.finish.has_value()) {
    if (const auto pushback = RetryPushbackMs(*next.finish)) {
      context_.AddTrailingMetadata("grpc-retry-pushback-ms", *pushback);
    }
    Finish(ToGrpcStatus(*next.finish));
  }
}

void InferStreamCall::Advance() {
  Next next;
  {
    batching::MutexLock lock(mutex_);
    next = DecideNext();
  }
  Do(next);
}

void InferStreamCall::OnWriteDone(bool ok) {
  absl::Time ready;
  {
    batching::MutexLock lock(mutex_);
    writing_ = false;
    ready = unsent_.front().ready;
    unsent_.pop_front();
    if (!ok) {
      cancelled_ = true;
      DropUnsent();
    }
  }
  const Backends& backends = service_.backends_;
  backends.observer.Sent(Method::kInferStream, backends.clock.Now() - ready);
  ReadNext();
  Advance();
}

void InferStreamCall::OnCancel() {
  std::vector<Inference::Cancel> cancels;
  {
    batching::MutexLock lock(mutex_);
    cancelled_ = true;
    DropUnsent();  // the one being written stays until OnWriteDone
    for (auto& [id, cancel] : in_flight_) {
      if (cancel) cancels.push_back(cancel);
    }
  }
  for (const auto& cancel : cancels) cancel();
  Advance();
}

void InferStreamCall::OnDone() {
  service_.StreamEnded(this);
  service_.CallEnded();
  delete this;
}

}  // namespace piserve::server::rpc
