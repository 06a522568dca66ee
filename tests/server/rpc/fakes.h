// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "model/error.h"
#include "server/inference.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/policy_directory.h"
#include "server/rpc/server_control.h"

namespace piserve::server::rpc {

// A chunk [2, 3] that holds the first state value six times.
inline InferenceReply ReplyTo(const InferenceRequest& request) {
  InferenceReply reply;
  const double first =
      request.observation.state.empty() ? 0 : request.observation.state[0];
  reply.actions.assign(6, static_cast<float>(first));
  reply.horizon = 2;
  reply.dim = 3;
  reply.seed = 7;
  reply.policy = "fake";
  reply.model_digest = "abc";
  reply.deadline_served = absl::Seconds(5);
  reply.wave_rows = 3;
  reply.graph_rows = 4;
  reply.num_steps = 10;
  reply.stages = {{"gpu", absl::Microseconds(42)}};
  return reply;
}

// Keeps requests until the test answers them, or answers by a handler at once.
// A cancelled request that waits is answered CANCELLED, as the real one does.
class FakeInference final : public Inference {
 public:
  using Handler =
      std::function<absl::StatusOr<InferenceReply>(const InferenceRequest&)>;

  // Null: requests wait for Answer.
  void AnswerBy(Handler handler) {
    batching::MutexLock lock(mutex_);
    handler_ = std::move(handler);
  }
  void AnswerAtOnce() { AnswerBy(&ReplyTo); }

  // From now on requests are being computed: cancelling does not answer them.
  void IgnoreCancel() {
    batching::MutexLock lock(mutex_);
    ignores_cancel_ = true;
  }

  Cancel Start(InferenceRequest request, Done done) override {
    Handler handler;
    int key = 0;
    {
      batching::MutexLock lock(mutex_);
      key = next_key_++;
      handler = handler_;
      started_.push_back({request.policy, request.identity, request.peer,
                          request.deadline - request.received, request.bytes,
                          request.storage});
      if (!handler) waiting_.emplace(key, Waiting{request, std::move(done)});
      changed_.NotifyAll();
    }
    if (handler) {
      done(handler(request));
      return [] {};
    }
    return [this, key] { CancelKey(key); };
  }

  struct Started {
    std::string policy;
    std::string identity;
    std::string peer;
    absl::Duration budget;
    std::size_t bytes = 0;
    std::weak_ptr<const void> storage;
  };

  // Blocks until `count` requests wait.
  void AwaitWaiting(std::size_t count) {
    batching::MutexLock lock(mutex_);
    while (waiting_.size() != count) changed_.Wait(mutex_);
  }
  // Blocks until `count` requests were cancelled.
  void AwaitCancelled(int count) {
    batching::MutexLock lock(mutex_);
    while (cancelled_ != count) changed_.Wait(mutex_);
  }
  std::vector<Started> started() {
    batching::MutexLock lock(mutex_);
    return started_;
  }

  // Answers the waiting request of this id (empty: any one).
  void Answer(const std::string& id) {
    Waiting one = Take(id);
    one.done(ReplyTo(one.request));
  }
  void Answer(const std::string& id, absl::Status status) {
    Take(id).done(std::move(status));
  }

 private:
  struct Waiting {
    InferenceRequest request;
    Done done;
  };

  Waiting Take(const std::string& id) {
    batching::MutexLock lock(mutex_);
    for (auto it = waiting_.begin(); it != waiting_.end(); ++it) {
      if (!id.empty() && it->second.request.request_id != id) continue;
      Waiting one = std::move(it->second);
      waiting_.erase(it);
      changed_.NotifyAll();
      return one;
    }
    std::abort();  // the test's own bug
  }

  void CancelKey(int key) {
    Done done;
    {
      batching::MutexLock lock(mutex_);
      const auto it = waiting_.find(key);
      if (it == waiting_.end()) return;
      ++cancelled_;
      changed_.NotifyAll();
      if (ignores_cancel_) return;
      done = std::move(it->second.done);
      waiting_.erase(it);
    }
    done(WithReason(absl::CancelledError("cancelled by the client"),
                    "CANCELLED"));
  }

  batching::Mutex mutex_;
  batching::CondVar changed_;
  Handler handler_;
  std::map<int, Waiting> waiting_;
  std::vector<Started> started_;
  int next_key_ = 0;
  int cancelled_ = 0;
  bool ignores_cancel_ = false;
};

class FakeDirectory final : public PolicyDirectory {
 public:
  void SetAvailability(absl::Status status) {
    batching::MutexLock lock(mutex_);
    availability_ = std::move(status);
  }
  absl::Status Availability() const override {
    batching::MutexLock lock(mutex_);
    return availability_;
  }
  std::string DefaultPolicy() const override { return "fake"; }
  absl::StatusOr<v1::GetPolicyInfoResponse> Describe(
      absl::string_view policy) const override {
    v1::GetPolicyInfoResponse response;
    for (const char* name : {"fake", "other"}) {
      if (policy.empty() || policy == name) {
        response.add_policies()->set_name(name);
      }
    }
    if (response.policies().empty()) {
      return WithReason(absl::NotFoundError("policy: unknown"),
                        "UNKNOWN_POLICY");
    }
    return response;
  }

 private:
  mutable batching::Mutex mutex_;
  absl::Status availability_;
};

// Counts what it is told.
class CountingObserver final : public CallObserver {
 public:
  void Received(Method) override {
    std::function<void()> then;
    {
      batching::MutexLock lock(mutex_);
      ++received_;
      then = std::exchange(on_next_received_, nullptr);
    }
    if (then) then();
  }
  void Completed(Method method, const absl::Status& status,
                 absl::Duration) override {
    batching::MutexLock lock(mutex_);
    ++completed_[{method, status.code()}];
    reasons_.push_back(ReasonOf(status).value_or(""));
    changed_.NotifyAll();
  }
  void Parsed(Method, absl::Duration) override {}
  void Sent(Method, absl::Duration) override {
    batching::MutexLock lock(mutex_);
    ++sent_;
    changed_.NotifyAll();
  }

  // Called once, by the thread that has just received a message.
  void OnNextReceived(std::function<void()> then) {
    batching::MutexLock lock(mutex_);
    on_next_received_ = std::move(then);
  }

  int received() {
    batching::MutexLock lock(mutex_);
    return received_;
  }
  int completed() {
    batching::MutexLock lock(mutex_);
    return Total();
  }
  int completed(Method method, absl::StatusCode code) {
    batching::MutexLock lock(mutex_);
    return completed_[{method, code}];
  }
  void AwaitCompleted(int count) {
    batching::MutexLock lock(mutex_);
    while (Total() < count) changed_.Wait(mutex_);
  }
  // A unary call is over for gRPC too once it was sent.
  void AwaitSent(int count) {
    batching::MutexLock lock(mutex_);
    while (sent_ < count) changed_.Wait(mutex_);
  }

 private:
  int Total() const {
    int total = 0;
    for (const auto& [key, count] : completed_) total += count;
    return total;
  }

  batching::Mutex mutex_;
  batching::CondVar changed_;
  int received_ = 0;
  int sent_ = 0;
  std::function<void()> on_next_received_;
  std::map<std::pair<Method, absl::StatusCode>, int> completed_;
  std::vector<std::string> reasons_;
};

class FakeControl final : public ServerControl {
 public:
  void Drain() override { ++drains; }
  LogLevel SetLogLevel(LogLevel level) override {
    return std::exchange(log_level, level);
  }

  int drains = 0;
  LogLevel log_level = LogLevel::kInfo;
};

}  // namespace piserve::server::rpc
