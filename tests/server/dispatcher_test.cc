// SPDX-License-Identifier: Apache-2.0
// The server between the wire and the network: each request gets its one right
// status. The policy is a puppet; the pipeline is the real one.
#include "server/dispatcher.h"

#include <atomic>
#include <cmath>
#include <functional>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "tests/support/fake_host.h"
#include "tests/support/fake_policy.h"

namespace piserve::server {
namespace {

using piserve::testing::FakePolicy;
using piserve::testing::FakeVariant;
using piserve::testing::HostOf;
using piserve::testing::LiberoRequest;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
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
absl::Status EchoNoise(const SlotRow& row, std::span<float> actions) {
  std::copy(row.noise.begin(), row.noise.end(), actions.begin());
  return absl::OkStatus();
}

FakePolicy::Options Echo() {
  FakePolicy::Options options;
  options.variant = FakeVariant();
  options.act = EchoNoise;
  return options;
}

class CountingObserver : public DispatchObserver {
 public:
  void OnAnswer(const Answer&) override { ++answers; }
  void OnWave(const WaveReport&) override { ++waves; }
  void OnFault(std::string_view, FaultKind kind) override {
    ++(kind == FaultKind::kHang ? hangs : failures);
  }
  std::atomic<int> answers = 0;
  std::atomic<int> waves = 0;
  std::atomic<int> hangs = 0;
  std::atomic<int> failures = 0;
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
    return came ? result_.get() : absl::UnknownError("no answer");
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

  Dispatcher& Make(LimitsConfig limits = {}) {
    std::vector<const HostedPolicy*> hosts;
    for (const auto& host : hosts_) hosts.push_back(host.get());
    dispatcher_ = std::make_unique<Dispatcher>(
        Dispatcher::Options{.limits = limits,
                            .workers = 2,
                            .hang = {2, absl::Minutes(1)},
                            .clock = &clock_,
                            .batching_observer = nullptr,
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
  std::vector<std::unique_ptr<const HostedPolicy>> hosts_;
  std::unique_ptr<Dispatcher> dispatcher_;
};

TEST_F(DispatcherTest, AnswersWithTheRowsOwnActions) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  std::vector<std::unique_ptr<Call>> calls;
  for (int i = 0; i < 16; ++i) {
    calls.push_back(std::make_unique<Call>(dispatcher, Request(i / 16.0f)));
  }
  for (int i = 0; i < 16; ++i) {
    const Result reply = calls[i]->Wait();
    ASSERT_TRUE(reply.ok()) << reply.status();
    EXPECT_EQ(reply->horizon, 10);
    EXPECT_EQ(reply->dim, 7);
    EXPECT_THAT(reply->actions, Each(::testing::FloatNear(i / 16.0f, 1e-5f)));
    EXPECT_EQ(reply->policy, "libero");
    EXPECT_EQ(reply->num_steps, 10);
    EXPECT_FALSE(reply->seed.has_value());
    EXPECT_GE(reply->graph_rows, reply->wave_rows);
  }
  EXPECT_EQ(observer_.answers, 16);
}

TEST_F(DispatcherTest, ReplySaysWhereTheTimeWent) {
  Add("libero", Echo());
  const Result reply = Call(Make(), Request()).Wait();
  ASSERT_TRUE(reply.ok());
  std::vector<std::string> stages;
  for (const StageDuration& stage : reply->stages) {
    stages.push_back(stage.stage);
    EXPECT_GE(stage.duration, absl::ZeroDuration()) << stage.stage;
  }
  EXPECT_THAT(stages,
              ::testing::ElementsAre("decode", "queue", "form", "gpu", "post"));
}

TEST_F(DispatcherTest, SeedIsDrawnAndReportedAndRepeats) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  InferenceRequest first = Request();
  first.start = std::monostate();
  const Result drawn = Call(dispatcher, std::move(first)).Wait();
  ASSERT_TRUE(drawn.ok());
  ASSERT_TRUE(drawn->seed.has_value());
  InferenceRequest again = Request();
  again.start = *drawn->seed;
  const Result repeated = Call(dispatcher, std::move(again)).Wait();
  EXPECT_EQ(repeated->actions, drawn->actions);
  EXPECT_EQ(repeated->seed, drawn->seed);
}

TEST_F(DispatcherTest, DeadlineIsDefaultedAndClampedAndTheReplySaysSo) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  EXPECT_EQ(Call(dispatcher, Request()).Wait()->deadline_served,
            absl::Seconds(5));
  InferenceRequest patient = Request();
  patient.deadline = patient.received + absl::Hours(1);
  EXPECT_EQ(Call(dispatcher, std::move(patient)).Wait()->deadline_served,
            absl::Seconds(30));
  InferenceRequest own = Request();
  own.deadline = own.received + absl::Seconds(7);
  EXPECT_EQ(Call(dispatcher, std::move(own)).Wait()->deadline_served,
            absl::Seconds(7));
}

struct Refusal {
  const char* name;
  void (*spoil)(InferenceRequest&);
  absl::StatusCode code;
  const char* reason;
  const char* field;
};

class RefusalTest : public DispatcherTest,
                    public ::testing::WithParamInterface<Refusal> {};

TEST_P(RefusalTest, GetsItsStatusReasonAndField) {
  Add("libero", Echo());
  InferenceRequest request = Request();
  GetParam().spoil(request);
  const absl::Status status = Call(Make(), std::move(request)).Wait().status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_EQ(ReasonOf(status), GetParam().reason);
  EXPECT_EQ(FieldOf(status).value_or(""), GetParam().field);
}

constexpr Refusal kRefusals[] = {
    {"Policy", [](InferenceRequest& r) { r.policy = "other"; },
     absl::StatusCode::kNotFound, "UNKNOWN_POLICY", ""},
    {"Digest", [](InferenceRequest& r) { r.model_digest = "0123"; },
     absl::StatusCode::kFailedPrecondition, "MODEL_DIGEST_MISMATCH", ""},
    {"Steps", [](InferenceRequest& r) { r.num_steps = 9; },
     absl::StatusCode::kFailedPrecondition, "STEPS_NOT_OFFERED", ""},
    {"HugeSteps", [](InferenceRequest& r) { r.num_steps = 0xffffffff; },
     absl::StatusCode::kFailedPrecondition, "STEPS_NOT_OFFERED", ""},
    {"NoiseShape",
     [](InferenceRequest& r) {
       r.noise_shape = {10, 7};
     },
     absl::StatusCode::kInvalidArgument, "WRONG_SHAPE", "noise.shape"},
    {"NoiseNaN",
     [](InferenceRequest& r) {
       std::get<std::vector<float>>(r.start)[3] = std::nanf("");
     },
     absl::StatusCode::kInvalidArgument, "NOT_FINITE", "noise.data"},
    {"DeadlinePast",
     [](InferenceRequest& r) { r.deadline = r.received - absl::Seconds(1); },
     absl::StatusCode::kDeadlineExceeded, "DEADLINE_PAST", ""},
};

INSTANTIATE_TEST_SUITE_P(BadInput, RefusalTest, ::testing::ValuesIn(kRefusals),
                         [](const auto& info) { return info.param.name; });

TEST_F(DispatcherTest, WrongObservationNamesItsField) {
  Add("libero", Echo());
  Dispatcher& dispatcher = Make();
  InferenceRequest request = Request();
  request.observation.state.pop_back();
  const absl::Status state =
      Call(dispatcher, std::move(request)).Wait().status();
  EXPECT_EQ(state.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldOf(state).value_or(""), HasSubstr("state"));
  InferenceRequest camera = Request();
  camera.observation.images[1].name = "elsewhere";
  const absl::Status image =
      Call(dispatcher, std::move(camera)).Wait().status();
  EXPECT_EQ(image.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(FieldOf(image).value_or(""), HasSubstr("images"));
}

TEST_F(DispatcherTest, BrokenImageGivesItsRoomBack) {
  Add("libero", Echo());
  LimitsConfig limits;
  limits.rows = 1;
  Dispatcher& dispatcher = Make(limits);
  // A JPEG that begins well and ends at once: found only by decoding.
  static constexpr char kHead[] =
      "\xff\xd8\xff\xc0\x00\x0b\x08\x00\x20\x00\x20\x01\x01\x11\x00\xff\xd9";
  for (int i = 0; i < 3; ++i) {
    InferenceRequest request = Request();
    ImageView& image = request.observation.images[0];
    image = {.name = image.name,
             .encoding = ImageEncoding::kJpeg,
             .width = 0,
             .height = 0,
             .data = std::string_view(kHead, sizeof(kHead) - 1)};
    const absl::Status status =
        Call(dispatcher, std::move(request)).Wait().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  }
  EXPECT_TRUE(Call(dispatcher, Request()).Wait().ok());
}

TEST_F(DispatcherTest, PolicyMustBeNamedWhereSeveralAreHosted) {
  Add("one", Echo());
  Add("two", FakePolicy::NoOp(FakeVariant()));
  Dispatcher& dispatcher = Make();
  EXPECT_EQ(Call(dispatcher, Request()).Reason(), "POLICY_REQUIRED");
  InferenceRequest request = Request(0.5f);
  request.policy = "two";
  const Result two = Call(dispatcher, std::move(request)).Wait();
  ASSERT_TRUE(two.ok()) << two.status();
  EXPECT_EQ(two->policy, "two");
  EXPECT_THAT(two->actions, Each(::testing::FloatNear(0, 1e-5f)));
}

TEST_F(DispatcherTest, UnreachableDeadlineIsRefusedWithThePrediction) {
  FakePolicy::Options slow = Echo();
  slow.duration = [](int) { return absl::Milliseconds(100); };
  Add("libero", slow);
  InferenceRequest request = Request();
  request.deadline = clock_.Now() + absl::Milliseconds(60);
  const absl::Status status = Call(Make(), std::move(request)).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(status), "DEADLINE_UNREACHABLE");
  EXPECT_GE(std::stoll(MetadataOf(status).at("predicted_us")), 100000);
}

TEST_F(DispatcherTest, NonFiniteRowIsWithheldAndHarmsNoOther) {
  FakePolicy::Options options = Echo();
  options.act = [](const SlotRow& row, std::span<float> actions) {
    std::copy(row.noise.begin(), row.noise.end(), actions.begin());
    if (row.noise[0] == 0.25f) {
      return WithReason(absl::InternalError("x"), "NON_FINITE_OUTPUT");
    }
    return absl::OkStatus();
  };
  options.duration = [](int) { return absl::Milliseconds(20); };
  Add("libero", options);
  Dispatcher& dispatcher = Make();
  Call good(dispatcher, Request(0.125f));
  Call looked(dispatcher, Request(0.25f));
  Call other(dispatcher, Request(0.75f));
  EXPECT_TRUE(good.Wait().ok());
  EXPECT_TRUE(other.Wait().ok());
  const Result bad = looked.Wait();
  EXPECT_EQ(bad.status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(bad.status()), "NON_FINITE_OUTPUT");
}

TEST_F(DispatcherTest, ActionsOverflowingInRobotUnitsAreWithheld) {
  FakePolicy::Options options = Echo();
  options.act = [](const SlotRow&, std::span<float> actions) {
    std::fill(actions.begin(), actions.end(),
              std::numeric_limits<float>::quiet_NaN());
    return absl::OkStatus();
  };
  Add("libero", options);
  EXPECT_EQ(Call(Make(), Request()).Reason(), "NON_FINITE_OUTPUT");
}

// What needs a full device: both slots hold a wave that does not end.
class QueueTest : public DispatcherTest {
 protected:
  Dispatcher& MakeHanging(LimitsConfig limits = {}) {
    FakePolicy::Options options = Echo();
    options.act = [this](const SlotRow& row, std::span<float> actions) {
      ++acted_;
      return EchoNoise(row, actions);
    };
    options.slots_in_flight = 1;
    policy_ = &Add("libero", options);
    policy_->Hang();
    Dispatcher& dispatcher = Make(limits);
    running_ = std::make_unique<Call>(dispatcher, Request());
    Until([this] { return acted_ == 1; });
    return dispatcher;
  }

  void TearDown() override {
    if (policy_ != nullptr) policy_->Release();
    DispatcherTest::TearDown();
  }

  std::atomic<int> acted_ = 0;
  FakePolicy* policy_ = nullptr;
  std::unique_ptr<Call> running_;
};

TEST_F(QueueTest, FullQueueSaysWhenToComeBack) {
  LimitsConfig limits;
  limits.rows = 1;
  Dispatcher& dispatcher = MakeHanging(limits);
  Call waiting(dispatcher, Request());
  const absl::Status status = Call(dispatcher, Request()).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(MetadataOf(status).at("bound"), "rows");
  EXPECT_GT(RetryAfterOf(status).value_or(absl::ZeroDuration()),
            absl::ZeroDuration());
  policy_->Release();
  EXPECT_TRUE(waiting.Wait().ok());
}

TEST_F(QueueTest, BytesAreBounded) {
  LimitsConfig limits;
  limits.bytes = 2 << 20;
  Dispatcher& dispatcher = MakeHanging(limits);
  Call waiting(dispatcher, Request());
  Until([&] { return dispatcher.in_flight() == 2; });
  InferenceRequest large = Request();
  large.bytes = 2 << 20;
  const absl::Status status =
      Call(dispatcher, std::move(large)).Wait().status();
  EXPECT_EQ(ReasonOf(status), "QUEUE_FULL");
  EXPECT_EQ(MetadataOf(status).at("bound"), "bytes");
}

TEST_F(QueueTest, OneClientCannotTakeTheWholeQueue) {
  LimitsConfig limits;
  limits.rows_per_client = 1;
  Dispatcher& dispatcher = MakeHanging(limits);
  const auto of = [this](const char* robot) {
    InferenceRequest request = Request();
    request.robot_id = robot;
    return request;
  };
  Call mine(dispatcher, of("a"));
  EXPECT_EQ(Call(dispatcher, of("a")).Reason(), "CLIENT_LIMIT");
  Call others(dispatcher, of("b"));
  policy_->Release();
  EXPECT_TRUE(mine.Wait().ok());
  EXPECT_TRUE(others.Wait().ok());
}

TEST_F(QueueTest, ExpiredInTheQueueIsNeverComputed) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  clock_.Jump(absl::Seconds(6));
  const absl::Status status = waiting.Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(status), "EXPIRED");
  policy_->Release();
  dispatcher_.reset();
  EXPECT_EQ(acted_, 1);
}

TEST_F(QueueTest, LateAnswerIsNotHandedOut) {
  MakeHanging();
  clock_.Jump(absl::Seconds(6));
  policy_->Release();
  const absl::Status status = running_->Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(ReasonOf(status), "LATE");
}

TEST_F(QueueTest, CancelledIsNeverComputed) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  waiting.Cancel();
  EXPECT_EQ(waiting.Reason(), "CANCELLED");
  waiting.Cancel();  // again, after the answer
  running_->Cancel();
  policy_->Release();
  EXPECT_TRUE(running_->Wait().ok()) << "what runs is answered as usual";
  dispatcher_.reset();
  EXPECT_EQ(acted_, 1);
}

TEST_F(QueueTest, CancelledByItsDeadlineCountsAsExpired) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  clock_.Jump(absl::Milliseconds(4900));  // of 5000
  waiting.Cancel();
  EXPECT_EQ(waiting.Reason(), "EXPIRED");
}

TEST_F(QueueTest, NewerObservationOfTheRobotSupersedes) {
  Dispatcher& dispatcher = MakeHanging();
  const auto of = [this](std::uint64_t sequence) {
    InferenceRequest request = Request();
    request.robot_id = "arm";
    request.sequence = sequence;
    request.supersede_older = true;
    return request;
  };
  Call older(dispatcher, of(1));
  Call newer(dispatcher, of(2));
  const absl::Status status = older.Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(status), "SUPERSEDED");
  policy_->Release();
  EXPECT_TRUE(newer.Wait().ok());
}

TEST_F(QueueTest, ObservationTooOldIsNotComputed) {
  Dispatcher& dispatcher = MakeHanging();
  InferenceRequest request = Request();
  request.age = absl::Milliseconds(200);
  request.max_age = absl::Milliseconds(500);
  Call waiting(dispatcher, std::move(request));
  clock_.Jump(absl::Milliseconds(400));
  const absl::Status status = waiting.Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(ReasonOf(status), "TOO_OLD");
}

TEST_F(QueueTest, DrainAnswersTheAcceptedAndTurnsOthersAway) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  dispatcher.Drain(clock_.Now() + absl::Seconds(25));
  const absl::Status status = Call(dispatcher, Request()).Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "DRAINING");
  EXPECT_EQ(RetryAfterOf(status), absl::ZeroDuration());
  policy_->Release();
  EXPECT_TRUE(waiting.Wait().ok());
  EXPECT_TRUE(running_->Wait().ok());
  Until([&] { return dispatcher.in_flight() == 0; });
}

TEST_F(QueueTest, DrainClampsDeadlines) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  dispatcher.Drain(clock_.Now() + absl::Seconds(1));
  clock_.Jump(absl::Seconds(2));
  EXPECT_EQ(waiting.Reason(), "EXPIRED");
}

TEST_F(QueueTest, DestructionAnswersWhatWaits) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  std::thread release([this, &waiting] {
    Until([&] { return waiting.answered(); });
    policy_->Release();
  });
  dispatcher_.reset();
  release.join();
  EXPECT_EQ(waiting.Reason(), "SHUTDOWN");
  EXPECT_TRUE(running_->Wait().ok());
}

TEST_F(QueueTest, HangIsFoundAndAnsweredAndTheLateCompletionIgnored) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  EXPECT_TRUE(dispatcher.CheckFaults());
  clock_.Jump(absl::Seconds(2));
  EXPECT_TRUE(dispatcher.CheckFaults()) << "within the floor";
  InferenceRequest patient = Request();
  patient.deadline = clock_.Now() + absl::Seconds(30);
  clock_.Jump(absl::Minutes(2));
  EXPECT_FALSE(dispatcher.CheckFaults());
  EXPECT_EQ(observer_.hangs, 1);
  const absl::Status status = running_->Wait().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(ReasonOf(status), "DEVICE_FAULT");
  EXPECT_THAT(waiting.Reason(), AnyOf("NO_DEVICE", "EXPIRED"));
  EXPECT_EQ(Call(dispatcher, Request()).Reason(), "DEVICE_FAULT");
  policy_->Release();
  dispatcher_.reset();
  EXPECT_EQ(observer_.hangs, 1);
}

TEST_F(QueueTest, DeviceFaultTurnsTheWaveAndAllLaterOnesAway) {
  Dispatcher& dispatcher = MakeHanging();
  Call waiting(dispatcher, Request());
  policy_->Break();
  EXPECT_FALSE(dispatcher.CheckFaults());
  EXPECT_EQ(observer_.failures, 1);
  EXPECT_EQ(waiting.Reason(), "NO_DEVICE");
  EXPECT_EQ(Call(dispatcher, Request()).Reason(), "DEVICE_FAULT");
  policy_->Release();
  EXPECT_TRUE(running_->Wait().ok()) << "it had been computed before";
}

TEST_F(DispatcherTest, FaultOfOnePolicyLeavesTheOtherServing) {
  FakePolicy& ill = Add("ill", Echo());
  Add("well", Echo());
  Dispatcher& dispatcher = Make();
  ill.Break();
  EXPECT_TRUE(dispatcher.CheckFaults());
  EXPECT_TRUE(dispatcher.Availability().ok());
  InferenceRequest one = Request();
  one.policy = "ill";
  EXPECT_EQ(Call(dispatcher, std::move(one)).Reason(), "DEVICE_FAULT");
  InferenceRequest two = Request();
  two.policy = "well";
  EXPECT_TRUE(Call(dispatcher, std::move(two)).Wait().ok());
}

// Answers of a hammering, by what they were.
struct Tally {
  std::atomic<int> right = 0;
  std::atomic<int> refused = 0;
  std::atomic<int> wrong = 0;
};

void Count(const Result& result, float tag, Tally& tally) {
  if (!result.ok()) {
    const bool known = absl::IsResourceExhausted(result.status()) ||
                       absl::IsDeadlineExceeded(result.status()) ||
                       absl::IsCancelled(result.status());
    ++(known ? tally.refused : tally.wrong);
    return;
  }
  bool own = true;
  for (const float action : result->actions) {
    own &= std::abs(action - tag) < 1e-4f;
  }
  ++(own ? tally.right : tally.wrong);
}

// Promise 1 under load: every request is answered once, with its own actions or
// with a status that fits what was done to it.
TEST_F(DispatcherTest, HammeredFromManyThreadsAnswersEachOnce) {
  FakePolicy::Options options = Echo();
  options.duration = [](int rows) {
    return absl::Microseconds(200 + 20 * rows);
  };
  Add("libero", options);
  LimitsConfig limits;
  limits.rows = 24;
  Dispatcher& dispatcher = Make(limits);
  constexpr int kThreads = 4;
  constexpr int kEach = 96;
  Tally tally;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      std::vector<std::pair<float, std::unique_ptr<Call>>> calls;
      for (int i = 0; i < kEach; ++i) {
        const float tag = (t * kEach + i) / 512.0f;
        InferenceRequest request = Request(tag);
        if (i % 7 == 0) {
          request.deadline = request.received + absl::Milliseconds(3);
        }
        calls.emplace_back(
            tag, std::make_unique<Call>(dispatcher, std::move(request)));
        if (i % 5 == 0) calls.back().second->Cancel();
        if (i % 4 == 3) (void)calls.back().second->Wait();
      }
      for (auto& [tag, call] : calls) Count(call->Wait(), tag, tally);
    });
  }
  for (std::thread& thread : threads) thread.join();
  Until([&] { return dispatcher.in_flight() == 0; });
  EXPECT_EQ(tally.wrong, 0);
  EXPECT_GT(tally.right, 0);
  EXPECT_EQ(tally.right + tally.refused, kThreads * kEach);
  EXPECT_EQ(observer_.answers, kThreads * kEach);
}

}  // namespace
}  // namespace piserve::server
