// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "server/dispatcher.h"
#include "tests/support/fake_host.h"
#include "tests/support/fake_policy.h"

namespace piserve::server {

using piserve::testing::FakePolicy;
using piserve::testing::FakeVariant;
using piserve::testing::HostOf;
using piserve::testing::LiberoRequest;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using Result = absl::StatusOr<InferenceReply>;

// Runs with the real time, and jumps ahead when told to.
class JumpingClock : public batching::Clock {
 public:
  absl::Time Now() const override {
    return batching::Clock::Real().Now() + absl::Milliseconds(ahead_ms_.load());
  }
  void Jump(absl::Duration by) { ahead_ms_ += absl::ToInt64Milliseconds(by); }

 private:
  std::atomic<std::int64_t> ahead_ms_ = 0;
};

// Noise is handed through: a row's actions say which row it was.
inline absl::Status EchoNoise(const SlotRow& row, std::span<float> actions) {
  std::copy(row.noise.begin(), row.noise.end(), actions.begin());
  return absl::OkStatus();
}

inline FakePolicy::Options Echo() {
  FakePolicy::Options options;
  options.variant = FakeVariant();
  options.act = EchoNoise;
  return options;
}

class CountingObserver : public DispatchObserver {
 public:
  void OnAnswer(const Answer&) override { ++answers; }
  void OnWave(const WaveReport& report) override {
    predicted_ms = absl::ToDoubleMilliseconds(report.predicted);
    ++waves;
  }
  void OnFault(std::string_view, FaultKind kind) override {
    ++(kind == FaultKind::kHang ? hangs : failures);
  }
  std::atomic<int> answers = 0;
  std::atomic<int> waves = 0;
  std::atomic<double> predicted_ms = 0;  // of the last wave
  std::atomic<int> hangs = 0;
  std::atomic<int> failures = 0;
};

// What the queue holds, as it was told last.
class QueueWatch : public batching::Observer {
 public:
  void OnQueue(const batching::QueueGauges& gauges) override {
    rows = gauges.rows;
    bytes = gauges.bytes;
  }
  std::atomic<int> rows = 0;
  std::atomic<std::size_t> bytes = 0;
};

// One request and its answer; more than one answer is a failure.
class Call {
 public:
  Call(Dispatcher& dispatcher, InferenceRequest request)
      : state_(std::make_shared<State>()) {
    cancel_ = dispatcher.Start(std::move(request), [state = state_](Result r) {
      ASSERT_EQ(++state->answers, 1);
      state->promise.set_value(std::move(r));
    });
    result_ = state_->promise.get_future().share();
  }

  Result Wait() {
    const bool came =
        result_.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
    if (!came) return absl::UnknownError("no answer");
    // The server must let go of the answer first: a Status counts references in
    // Abseil, where ThreadSanitizer does not see who was last.
    while (state_.use_count() > 1) std::this_thread::yield();
    return result_.get();
  }
  std::string Reason() { return ReasonOf(Wait().status()).value_or("none"); }
  void Cancel() { cancel_(); }
  bool answered() const { return state_->answers > 0; }

 private:
  struct State {
    std::promise<Result> promise;
    std::atomic<int> answers = 0;
  };
  const std::shared_ptr<State> state_;
  Inference::Cancel cancel_;
  std::shared_future<Result> result_;
};

class DispatcherTest : public ::testing::Test {
 protected:
  // Policies may still compute, and call what a test made for them.
  void TearDown() override {
    dispatcher_.reset();
    hosts_.clear();
  }

  // The first policy of the dispatcher; call before Make.
  FakePolicy& Add(const std::string& name, FakePolicy::Options options) {
    auto policy = std::make_unique<FakePolicy>(std::move(options));
    FakePolicy& borrowed = *policy;
    hosts_.push_back(std::make_unique<const HostedPolicy>(
        HostOf(name, std::move(policy), PISERVE_SOURCE_DIR)));
    return borrowed;
  }

  Dispatcher& Make(LimitsConfig limits = {},
                   WatchdogConfig watchdog = {2, absl::Minutes(1)}) {
    std::vector<const HostedPolicy*> hosts;
    for (const auto& host : hosts_) hosts.push_back(host.get());
    dispatcher_ = std::make_unique<Dispatcher>(
        Dispatcher::Options{.limits = limits,
                            .workers = 2,
                            .watchdog = watchdog,
                            .clock = &clock_,
                            .batching_observer = &queue_,
                            .observer = &observer_},
        std::move(hosts));
    return *dispatcher_;
  }

  InferenceRequest Request(float tag = 0) {
    InferenceRequest request = LiberoRequest(clock_.Now());
    std::get<std::vector<float>>(request.start).assign(10 * 32, tag);
    return request;
  }

  // Waits for a condition that another thread is about to make true.
  static void Until(const std::function<bool()>& condition) {
    while (!condition()) std::this_thread::yield();
  }

  JumpingClock clock_;
  CountingObserver observer_;
  QueueWatch queue_;
  std::vector<std::unique_ptr<const HostedPolicy>> hosts_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

}  // namespace piserve::server
