// SPDX-License-Identifier: Apache-2.0
// What becomes of requests that wait, and of those that run, while a device is
// full, hangs or breaks.
#include <atomic>
#include <optional>

#include "tests/server/dispatcher_fixture.h"

namespace piserve::server {
namespace {

// What needs a full device: both slots hold a wave that does not end.
class QueueTest : public DispatcherTest {
 protected:
  Dispatcher& MakeHanging(LimitsConfig limits = {},
                          FakePolicy::Options options = Echo(),
                          std::optional<InferenceRequest> first = {}) {
    options.act = [this](const SlotRow& row, std::span<float> actions) {
      ++acted_;
      return EchoNoise(row, actions);
    };
    options.slots_in_flight = 1;
    policy_ = &Add("libero", options);
    policy_->Hang();
    Dispatcher& dispatcher = Make(limits);
    running_ = std::make_unique<Call>(dispatcher,
                                      first ? *std::move(first) : Request());
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

// What is wrong with a request of which one thing would be enough.
struct Wrongs {
  const char* name;
  bool draining;
  bool bad_state;
  absl::Duration budget;  // what is left until the deadline
  absl::StatusCode code;
  const char* reason;
};

class OrderOfChecksTest : public QueueTest,
                          public ::testing::WithParamInterface<Wrongs> {};

constexpr absl::Duration kPast = -absl::Seconds(1);
constexpr absl::Duration kTooShort = absl::Milliseconds(60);
constexpr absl::Duration kAmple = absl::Seconds(5);

// The queue is full each time.
TEST_P(OrderOfChecksTest, TheFirstThingThatIsWrongIsTold) {
  FakePolicy::Options slow = Echo();
  slow.predicted = [](int) { return absl::Milliseconds(100); };
  LimitsConfig limits;
  limits.rows = 1;
  Dispatcher& dispatcher = MakeHanging(limits, slow);
  Call waiting(dispatcher, Request());
  const Wrongs& wrongs = GetParam();
  if (wrongs.draining) dispatcher.Drain(clock_.Now() + absl::Seconds(25));
  InferenceRequest request = Request();
  request.deadline = request.received + wrongs.budget;
  if (wrongs.bad_state) request.observation.state.pop_back();
  const absl::Status status =
      Call(dispatcher, std::move(request)).Wait().status();
  EXPECT_EQ(status.code(), wrongs.code) << status;
  EXPECT_EQ(ReasonOf(status), wrongs.reason);
  policy_->Release();
  EXPECT_TRUE(waiting.Wait().ok());
}

constexpr Wrongs kWrongs[] = {
    {"Draining", true, true, kPast, absl::StatusCode::kUnavailable, "DRAINING"},
    {"Contents", false, true, kPast, absl::StatusCode::kInvalidArgument,
     "STATE_LENGTH"},
    {"Past", false, false, kPast, absl::StatusCode::kDeadlineExceeded,
     "DEADLINE_PAST"},
    {"OutOfReach", false, false, kTooShort, absl::StatusCode::kDeadlineExceeded,
     "DEADLINE_UNREACHABLE"},
    {"Bounds", false, false, kAmple, absl::StatusCode::kResourceExhausted,
     "QUEUE_FULL"},
};

INSTANTIATE_TEST_SUITE_P(AtAFullQueue, OrderOfChecksTest,
                         ::testing::ValuesIn(kWrongs),
                         [](const auto& info) { return info.param.name; });

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

// Three cameras of 224 x 224 pixels are 451'584 bytes, whatever a robot sent.
TEST_F(QueueTest, BytesThatPreparationMakesAreBoundedAtAdmission) {
  Add("libero", Echo());
  const auto reason_under = [this](std::size_t bound) {
    LimitsConfig limits;
    limits.bytes = bound;
    InferenceRequest small = Request();
    small.bytes = 1'000;
    return Call(Make(limits), std::move(small)).Reason();
  };
  EXPECT_EQ(reason_under(440'000), "QUEUE_FULL");
  EXPECT_EQ(reason_under(480'000), "none");
}

// Once its images are decoded, unless a recording still needs them.
TEST_F(QueueTest, AMessageCountsAsLongAsSomebodyKeepsIt) {
  constexpr std::size_t kMessage = 64 << 20;
  for (const bool kept : {false, true}) {
    InferenceRequest request = Request();
    request.bytes = kMessage;
    request.storage_kept = kept;
    acted_ = 0;
    MakeHanging({}, Echo(), std::move(request));
    Until([&] { return queue_.rows == 0 && queue_.bytes > 0; });
    EXPECT_EQ(queue_.bytes >= kMessage, kept);
    policy_->Release();
    EXPECT_TRUE(running_->Wait().ok());
    DispatcherTest::TearDown();
  }
  policy_ = nullptr;
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

struct Who {
  const char* identity;
  const char* robot;
  const char* peer;
};

struct TwoRequests {
  const char* name;
  Who first;
  Who second;
  bool one_client;
};

class FairnessTest : public QueueTest,
                     public ::testing::WithParamInterface<TwoRequests> {
 protected:
  InferenceRequest Of(const Who& who) {
    InferenceRequest request = Request();
    request.identity = who.identity;
    request.robot_id = who.robot;
    request.peer = who.peer;
    return request;
  }
};

TEST_P(FairnessTest, AClientIsAnIdentityElseARobotElseAnAddress) {
  LimitsConfig limits;
  limits.rows_per_client = 1;
  Dispatcher& dispatcher = MakeHanging(limits);
  Call first(dispatcher, Of(GetParam().first));
  Call second(dispatcher, Of(GetParam().second));
  policy_->Release();
  EXPECT_TRUE(first.Wait().ok());
  EXPECT_EQ(second.Reason(), GetParam().one_client ? "CLIENT_LIMIT" : "none");
}

constexpr TwoRequests kTwoRequests[] = {
    {"OneIdentity", {"i", "r", "p"}, {"i", "s", "q"}, true},
    {"TwoIdentities", {"i", "r", "p"}, {"j", "r", "p"}, false},
    {"OneRobot", {"", "r", "p"}, {"", "r", "q"}, true},
    {"TwoRobots", {"", "r", "p"}, {"", "s", "p"}, false},
    {"OneAddress", {"", "", "p"}, {"", "", "p"}, true},
    {"TwoAddresses", {"", "", "p"}, {"", "", "q"}, false},
    {"AnIdentityIsNoRobot", {"x", "", ""}, {"", "x", ""}, false},
    {"ARobotIsNoAddress", {"", "x", ""}, {"", "", "x"}, false},
};

INSTANTIATE_TEST_SUITE_P(Clients, FairnessTest,
                         ::testing::ValuesIn(kTwoRequests),
                         [](const auto& info) { return info.param.name; });

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
  EXPECT_THAT(status.message(), HasSubstr(", want them within 5s"));
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

}  // namespace
}  // namespace piserve::server
