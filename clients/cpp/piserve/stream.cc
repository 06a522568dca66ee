// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/stream.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "clients/cpp/piserve/codec.h"
#include "clients/cpp/piserve/context.h"
#include "clients/cpp/piserve/observation_check.h"
#include "clients/cpp/piserve/status.h"
#include "clients/cpp/piserve/stream_connection.h"
#include "grpcpp/alarm.h"
#include "piserve/v1/policy.grpc.pb.h"

namespace piserve::client {
namespace {

absl::Status DeadlinePassed() {
  return WithReason(
      absl::DeadlineExceededError("no answer came before the deadline"),
      kReasonLateReply);
}

absl::StatusOr<ActionChunk> DecodeChunk(const v1::InferStreamResponse& response,
                                        const v1::PolicyInfo& policy) {
  auto chunk = DecodeResult(response.result(), response.request_id());
  if (!chunk.ok()) return chunk;
  absl::Status status = CheckChunk(*chunk, policy);
  if (!status.ok()) return status;
  return chunk;
}

// The outcome of `response` as a unary call would have told it.
absl::StatusOr<ActionChunk> DecodeOutcome(
    const v1::InferStreamResponse& response, const v1::PolicyInfo& policy) {
  switch (response.outcome_case()) {
    case v1::InferStreamResponse::kResult:
      return DecodeChunk(response, policy);
    case v1::InferStreamResponse::kError:
      return FromWire(response.error());
    case v1::InferStreamResponse::OUTCOME_NOT_SET:
      break;
  }
  return WithReason(absl::InternalError("got neither result nor error"),
                    kReasonBadReply);
}

}  // namespace

class PolicyStream::State : public std::enable_shared_from_this<State> {
 public:
  explicit State(Setup setup)
      : setup_(std::move(setup)),
        stub_(v1::PolicyService::NewStub(setup_.channel)) {}

  void Send(const ObservationIn& observation, const CallOptions& call,
            Callback done);
  void Close();
  std::uint64_t dropped_replies() {
    absl::MutexLock lock(&mutex_);
    return dropped_;
  }

 private:
  struct Pending {
    std::string id;  // the caller's; the key is what the wire calls it
    Callback done;
    Clock::TimePoint deadline;
    std::uint64_t serial = 0;
    const v1::PolicyInfo* policy = nullptr;  // of setup_
    StreamConnection* connection = nullptr;
    std::unique_ptr<grpc::Alarm> alarm;
  };

  // The observation's policy, if both are fit for each other.
  absl::StatusOr<const v1::PolicyInfo*> Check(
      const ObservationIn& observation) const;
  absl::Status Admit(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string WireId(const std::string& id)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteLocked(v1::InferStreamRequest request, Pending* pending)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Reconnect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void SetAlarm(const std::string& id, Pending* pending);

  void OnReply(const v1::InferStreamResponse& response);
  void OnEnd(StreamConnection* connection, const absl::Status& status);
  void OnAlarm(const std::string& id, std::uint64_t serial);

  // Hands over the answer of a request that was taken out of pending_, outside
  // of the lock; running_ was raised when it was taken out.
  void Finish(Pending pending, absl::StatusOr<ActionChunk> answer);

  Setup setup_;
  // Gone after Close, as are the connections, so that no thread of gRPC's is
  // the last to let go of the channel.
  std::unique_ptr<v1::PolicyService::Stub> stub_;
  absl::Mutex mutex_;
  std::map<std::string, Pending> pending_ ABSL_GUARDED_BY(mutex_);
  // Whose deadline has passed and whose answer may still come, on which
  // connection.
  std::map<std::string, const StreamConnection*> given_up_
      ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<StreamConnection> connection_ ABSL_GUARDED_BY(mutex_);
  // Replaced before they had ended, and ended ones to be destroyed.
  std::vector<std::unique_ptr<StreamConnection>> retired_
      ABSL_GUARDED_BY(mutex_);
  std::set<const StreamConnection*> open_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;  // callbacks
  std::uint64_t next_serial_ ABSL_GUARDED_BY(mutex_) = 1;
  std::uint64_t dropped_ ABSL_GUARDED_BY(mutex_) = 0;
};

absl::StatusOr<const v1::PolicyInfo*> PolicyStream::State::Check(
    const ObservationIn& observation) const {
  const auto named = [&](const v1::PolicyInfo& info) {
    return observation.policy.empty() || info.name() == observation.policy;
  };
  const auto begin = setup_.policies.begin();
  const auto end = setup_.policies.end();
  const auto count = std::count_if(begin, end, named);
  if (count != 1) {
    return InvalidObservation(
        "policy", absl::StrCat("got '", observation.policy, "', which is ",
                               count, " policies here, want one"));
  }
  const v1::PolicyInfo& info = *std::find_if(begin, end, named);
  absl::Status status = CheckPolicy(info, setup_.expect);
  if (status.ok()) status = CheckObservation(observation, info);
  if (!status.ok()) return status;
  return &info;
}

absl::Status PolicyStream::State::Admit(const std::string& id) {
  if (pending_.size() >= kMaxInFlight) {
    return absl::ResourceExhaustedError(
        absl::StrCat("stream: got request ", kMaxInFlight + 1,
                     " in flight, want at most ", kMaxInFlight));
  }
  for (const auto& [wire_id, pending] : pending_) {
    if (pending.id != id) continue;
    return InvalidObservation(
        "request_id", absl::StrCat("got '", id, "', which is in flight"));
  }
  return absl::OkStatus();
}

// The id, or one that an answer to an earlier request cannot have.
std::string PolicyStream::State::WireId(const std::string& id) {
  constexpr std::size_t kMostKept = 43;  // of 64 bytes, the serial's besides
  std::string wire_id = id;
  while (pending_.count(wire_id) != 0 || given_up_.count(wire_id) != 0) {
    wire_id =
        absl::StrCat(id.size() <= kMostKept ? id : "", "#", next_serial_++);
  }
  return wire_id;
}

void PolicyStream::State::Send(const ObservationIn& observation,
                               const CallOptions& call, Callback done) {
  const Clock::TimePoint now = setup_.clock->Now();
  const absl::Duration timeout = call.timeout.value_or(setup_.timeout);
  const auto policy = Check(observation);
  absl::Status status = policy.status();
  v1::InferStreamRequest request;
  if (status.ok()) {
    EncodeObservation(observation, request.mutable_observation());
    EncodeAge(observation, now, request.mutable_observation());
    request.set_timeout_us(
        std::max<std::int64_t>(1, absl::ToInt64Microseconds(timeout)));
  }
  if (status.ok()) {
    absl::MutexLock lock(&mutex_);
    std::string id = observation.request_id;
    if (id.empty()) id = absl::StrCat("#", next_serial_);
    status = Admit(id);
    if (status.ok()) {
      const std::string wire_id = WireId(id);
      request.mutable_observation()->set_request_id(wire_id);
      Pending& pending = pending_[wire_id];
      pending = {.id = std::move(id),
                 .done = std::move(done),
                 .deadline = now + absl::ToChronoNanoseconds(timeout),
                 .serial = next_serial_++,
                 .policy = *policy,
                 .connection = nullptr,
                 .alarm = std::make_unique<grpc::Alarm>()};
      SetAlarm(wire_id, &pending);
      WriteLocked(std::move(request), &pending);
      return;
    }
  }
  done(status);
}

void PolicyStream::State::SetAlarm(const std::string& id, Pending* pending) {
  const absl::Duration left =
      absl::FromChrono(pending->deadline - setup_.clock->Now());
  pending->alarm->Set(
      GrpcDeadline(left),
      [weak = weak_from_this(), id, serial = pending->serial](bool expired) {
        const auto self = weak.lock();
        if (expired && self != nullptr) self->OnAlarm(id, serial);
      });
}

void PolicyStream::State::WriteLocked(v1::InferStreamRequest request,
                                      Pending* pending) {
  if (connection_ == nullptr || connection_->broken()) Reconnect();
  pending->connection = connection_.get();
  // If it breaks now, OnEnd answers the request.
  connection_->Write(std::move(request));
}

void PolicyStream::State::Reconnect() {
  if (connection_ != nullptr) retired_.push_back(std::move(connection_));
  std::erase_if(retired_, [this](const auto& retired) {
    mutex_.AssertHeld();
    return open_.count(retired.get()) == 0;
  });
  connection_ = StreamConnection::Start(
      stub_.get(), setup_.api_key,
      {.on_reply =
           [self =
                shared_from_this()](const v1::InferStreamResponse& response) {
             self->OnReply(response);
           },
       .on_end =
           [self = shared_from_this()](StreamConnection* connection,
                                       const absl::Status& status) {
             self->OnEnd(connection, status);
           }});
  open_.insert(connection_.get());
}

void PolicyStream::State::OnReply(const v1::InferStreamResponse& response) {
  Pending pending;
  bool late = false;
  {
    absl::MutexLock lock(&mutex_);
    auto node = pending_.extract(response.request_id());
    if (node.empty()) {
      ++dropped_;
      given_up_.erase(response.request_id());
      return;
    }
    pending = std::move(node.mapped());
    late = setup_.clock->Now() > pending.deadline;
    if (late) ++dropped_;
    ++running_;
  }
  absl::StatusOr<ActionChunk> answer = DeadlinePassed();
  if (!late) answer = DecodeOutcome(response, *pending.policy);
  if (answer.ok()) answer->request_id = pending.id;
  Finish(std::move(pending), std::move(answer));
}

void PolicyStream::State::OnAlarm(const std::string& id, std::uint64_t serial) {
  Pending pending;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = pending_.find(id);
    if (found == pending_.end() || found->second.serial != serial) return;
    pending = std::move(found->second);
    pending_.erase(found);
    if (!pending.connection->Withdraw(id)) given_up_[id] = pending.connection;
    ++running_;
  }
  Finish(std::move(pending), DeadlinePassed());
}

void PolicyStream::State::OnEnd(StreamConnection* connection,
                                const absl::Status& status) {
  std::vector<Pending> ended;
  {
    absl::MutexLock lock(&mutex_);
    for (auto it = pending_.begin(); it != pending_.end();) {
      if (it->second.connection == connection) {
        ended.push_back(std::move(it->second));
        it = pending_.erase(it);
      } else {
        ++it;
      }
    }
    std::erase_if(given_up_,
                  [&](const auto& late) { return late.second == connection; });
    running_ += ended.size();
  }
  const absl::Status reason =
      status.ok() ? absl::UnavailableError("the server ended the stream")
                  : status;
  for (Pending& pending : ended) Finish(std::move(pending), reason);
  absl::MutexLock lock(&mutex_);
  open_.erase(connection);
}

void PolicyStream::State::Finish(Pending pending,
                                 absl::StatusOr<ActionChunk> answer) {
  pending.done(std::move(answer));
  absl::MutexLock lock(&mutex_);
  --running_;
}

void PolicyStream::State::Close() {
  std::map<std::string, Pending> ended;
  {
    absl::MutexLock lock(&mutex_);
    ended.swap(pending_);
    running_ += ended.size();
    if (connection_ != nullptr) connection_->Cancel();
  }
  for (auto& [id, pending] : ended) {
    Finish(std::move(pending), absl::CancelledError("the stream was closed"));
  }
  const auto idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return running_ == 0 && open_.empty();
  };
  absl::MutexLock lock(&mutex_);
  mutex_.Await(absl::Condition(&idle));
  connection_ = nullptr;
  retired_.clear();
  stub_ = nullptr;
  setup_.channel = nullptr;
}

PolicyStream::PolicyStream(Setup setup)
    : state_(std::make_shared<State>(std::move(setup))) {}

PolicyStream::~PolicyStream() { state_->Close(); }

void PolicyStream::Send(const ObservationIn& observation,
                        const CallOptions& call, Callback done) {
  state_->Send(observation, call, std::move(done));
}

std::uint64_t PolicyStream::dropped_replies() const {
  return state_->dropped_replies();
}

}  // namespace piserve::client
