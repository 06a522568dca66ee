// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/latest.h"

#include <gtest/gtest.h>

#include <deque>
#include <future>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/status.h"
#include "tests/clients/cpp/fake_service.h"

namespace piserve::client {
namespace {

using Answer = absl::StatusOr<ActionChunk>;

constexpr absl::Duration kMaxAge = absl::Milliseconds(500);
// Passes only where a test fails.
constexpr absl::Duration kSoon = absl::Seconds(20);

ObservationIn Named(const std::string& name) {
  ObservationIn observation;
  observation.request_id = name;
  return observation;
}

// A policy whose every request waits until the test answers it.
class Puppet {
 public:
  struct Call {
    std::string name;
    CallOptions options;
    std::promise<Answer> answer;

    void Succeed() {
      ActionChunk chunk;
      chunk.request_id = name;
      answer.set_value(std::move(chunk));
    }
    void Fail(absl::Status status) { answer.set_value(std::move(status)); }
  };

  Answer Infer(const ObservationIn& observation, const CallOptions& options) {
    auto call = std::make_shared<Call>();
    call->name = observation.request_id;
    call->options = options;
    std::future<Answer> answer = call->answer.get_future();
    {
      absl::MutexLock lock(&mutex_);
      calls_.push_back(std::move(call));
    }
    return answer.get();
  }

  std::shared_ptr<Call> NextCall() {
    absl::MutexLock lock(&mutex_);
    const auto called = [this] { return !calls_.empty(); };
    if (!mutex_.AwaitWithTimeout(absl::Condition(&called), kSoon)) {
      ADD_FAILURE() << "nothing was sent";
      return std::make_shared<Call>();
    }
    auto call = std::move(calls_.front());
    calls_.pop_front();
    return call;
  }

 private:
  absl::Mutex mutex_;
  std::deque<std::shared_ptr<Call>> calls_;
};

class Latest : public ::testing::Test {
 protected:
  std::unique_ptr<LatestOnly> Make(int in_flight = 1) {
    return *LatestOnly::Create(
        [this](const ObservationIn& observation, const CallOptions& options) {
          return puppet_.Infer(observation, options);
        },
        {.max_age = kMaxAge, .in_flight = in_flight, .clock = &clock_});
  }
  void SendAndAnswer(LatestOnly& latest, const std::string& name) {
    ASSERT_TRUE(latest.Observe(Named(name)).ok());
    const auto call = puppet_.NextCall();
    ASSERT_EQ(call->name, name);
    call->Succeed();
  }
  // Gives an observation and waits until it is sent: then a requester that was
  // busy before has filed its answer.
  std::shared_ptr<Puppet::Call> Send(LatestOnly& latest,
                                     const std::string& name) {
    EXPECT_TRUE(latest.Observe(Named(name)).ok());
    return puppet_.NextCall();
  }
  // Of the newest chunk: the name of its observation; empty if there is none.
  static std::string Name(LatestOnly& latest,
                          absl::Duration timeout = absl::ZeroDuration()) {
    const auto chunk = latest.Newest(timeout);
    EXPECT_TRUE(chunk.ok()) << chunk.status();
    return chunk.ok() && chunk->has_value() ? (*chunk)->chunk.request_id : "";
  }

  FakeClock clock_;
  Puppet puppet_;
};

TEST_F(Latest, TheNewestObservationIsSentAndThoseBetweenNever) {
  const auto latest = Make();
  const auto first = Send(*latest, "a");
  for (const char* name : {"b", "c", "d"}) {
    ASSERT_TRUE(latest->Observe(Named(name)).ok());
  }
  first->Succeed();
  const auto second = puppet_.NextCall();
  EXPECT_EQ(second->name, "d");
  second->Succeed();
}

TEST_F(Latest, AnObservationCapturedBeforeOneAlreadyGivenIsDropped) {
  const auto latest = Make();
  const auto busy = Send(*latest, "a");
  ObservationIn old = Named("old");
  old.captured_at = clock_.Now() - std::chrono::milliseconds(100);
  ASSERT_TRUE(latest->Observe(Named("new")).ok());
  ASSERT_TRUE(latest->Observe(old).ok());
  busy->Succeed();
  const auto call = puppet_.NextCall();
  EXPECT_EQ(call->name, "new");
  call->Succeed();
}

TEST_F(Latest, TheDeadlineCountsFromTheCaptureAndNothingIsTriedTwice) {
  const auto latest = Make();
  ObservationIn observation = Named("a");
  observation.captured_at = clock_.Now() - std::chrono::milliseconds(125);
  ASSERT_TRUE(latest->Observe(observation).ok());
  const auto call = puppet_.NextCall();
  EXPECT_EQ(call->options.timeout, absl::Milliseconds(375));
  EXPECT_EQ(call->options.attempts, 1);
  call->Succeed();
}

TEST_F(Latest, AnObservationThatGrewTooOldIsNotSent) {
  const auto latest = Make();
  const auto busy = Send(*latest, "a");
  ASSERT_TRUE(latest->Observe(Named("b")).ok());
  clock_.Advance(kMaxAge);
  busy->Succeed();
  auto chunk = latest->Newest(kSoon);
  while (chunk.ok() && chunk->has_value()) chunk = latest->Newest(kSoon);
  EXPECT_EQ(ErrorReason(chunk.status()), "TOO_OLD_AT_CLIENT");
  SendAndAnswer(*latest, "c");
  EXPECT_EQ(Name(*latest, kSoon), "c");
}

TEST_F(Latest, AnObservationOfTheFutureIsRefused) {
  const auto latest = Make();
  ObservationIn observation = Named("a");
  observation.captured_at = clock_.Now() + std::chrono::seconds(1);
  EXPECT_EQ(ErrorField(latest->Observe(observation)), "captured_at");
}

TEST_F(Latest, AChunkIsHandedOutOnceWithItsAge) {
  const auto latest = Make();
  EXPECT_EQ(Name(*latest), "");
  const Clock::TimePoint captured = clock_.Now();
  const auto call = Send(*latest, "a");
  clock_.Advance(absl::Milliseconds(250));
  call->Succeed();
  const auto chunk = latest->Newest(kSoon);
  ASSERT_TRUE(chunk.ok() && chunk->has_value()) << chunk.status();
  EXPECT_EQ((*chunk)->age, absl::Milliseconds(250));
  EXPECT_EQ((*chunk)->captured_at, captured);
  EXPECT_EQ(Name(*latest), "");
}

TEST_F(Latest, AChunkOlderThanTheLastHandedOutIsNeverHandedOut) {
  const auto latest = Make(/*in_flight=*/2);
  const auto slow = Send(*latest, "a");
  SendAndAnswer(*latest, "b");
  EXPECT_EQ(Name(*latest, kSoon), "b");
  slow->Succeed();
  const auto one = Send(*latest, "c");
  const auto other = Send(*latest, "d");  // a's answer was filed
  EXPECT_EQ(Name(*latest), "");
  one->Succeed();
  other->Succeed();
}

TEST_F(Latest, AnOlderChunkDoesNotReplaceOneThatWaits) {
  const auto latest = Make(/*in_flight=*/2);
  const auto slow = Send(*latest, "a");
  SendAndAnswer(*latest, "b");
  const auto one = Send(*latest, "c");  // b's answer was filed
  slow->Succeed();
  const auto other = Send(*latest, "d");  // a's was
  EXPECT_EQ(Name(*latest), "b");
  one->Succeed();
  other->Succeed();
}

TEST_F(Latest, AChunkOlderThanTheLimitIsNeverHandedOut) {
  const auto latest = Make();
  SendAndAnswer(*latest, "a");
  auto call = Send(*latest, "b");  // a's answer was filed
  clock_.Advance(kMaxAge);
  EXPECT_EQ(Name(*latest), "a");
  call->Succeed();
  call = Send(*latest, "c");  // b's was
  clock_.Advance(absl::Nanoseconds(1));
  EXPECT_EQ(Name(*latest), "");
  call->Succeed();
}

TEST_F(Latest, AnExpiredChunkDoesNotEndTheWaitForANewerOne) {
  constexpr absl::Duration kWait = absl::Milliseconds(100);
  const auto latest = Make();
  SendAndAnswer(*latest, "a");
  const auto busy = Send(*latest, "b");  // a's answer was filed
  clock_.Advance(kMaxAge + absl::Nanoseconds(1));
  const absl::Time start = absl::Now();
  EXPECT_EQ(Name(*latest, kWait), "");
  EXPECT_GE(absl::Now() - start, kWait);
  busy->Succeed();  // too late as well
  SendAndAnswer(*latest, "c");
  EXPECT_EQ(Name(*latest, kSoon), "c");
}

TEST_F(Latest, NothingOfBeforeAResetIsHandedOut) {
  const auto latest = Make();
  SendAndAnswer(*latest, "a");
  const auto under_way = Send(*latest, "b");
  ASSERT_TRUE(latest->Observe(Named("c")).ok());
  latest->Reset();
  EXPECT_EQ(Name(*latest), "");
  under_way->Succeed();
  SendAndAnswer(*latest, "d");
  EXPECT_EQ(Name(*latest, kSoon), "d");
}

TEST_F(Latest, AnErrorIsToldOnceAndTheNextObservationAsksAgain) {
  const auto latest = Make();
  Send(*latest, "a")->Fail(absl::DeadlineExceededError("late"));
  EXPECT_TRUE(absl::IsDeadlineExceeded(latest->Newest(kSoon).status()));
  EXPECT_EQ(Name(*latest), "");
  SendAndAnswer(*latest, "b");
  EXPECT_EQ(Name(*latest, kSoon), "b");
}

TEST_F(Latest, AChunkGoesBeforeTheErrorOfANewerRequest) {
  const auto latest = Make();
  SendAndAnswer(*latest, "a");
  Send(*latest, "b")->Fail(absl::InternalError("broken"));
  const auto call = Send(*latest, "c");  // b's error was filed
  EXPECT_EQ(Name(*latest), "a");
  EXPECT_TRUE(absl::IsInternal(latest->Newest().status()));
  call->Succeed();
}

TEST_F(Latest, AnOlderChunkDoesNotTakeANewerErrorAway) {
  const auto latest = Make(/*in_flight=*/2);
  const auto slow = Send(*latest, "a");
  Send(*latest, "b")->Fail(absl::InternalError("broken"));
  const auto one = Send(*latest, "c");  // b's error was filed
  slow->Succeed();
  const auto other = Send(*latest, "d");  // a's answer was
  EXPECT_EQ(Name(*latest), "a");
  EXPECT_TRUE(absl::IsInternal(latest->Newest().status()));
  one->Succeed();
  other->Succeed();
}

TEST_F(Latest, ANewerChunkTakesAnOlderErrorAway) {
  const auto latest = Make();
  Send(*latest, "a")->Fail(absl::InternalError("broken"));
  SendAndAnswer(*latest, "b");
  const auto call = Send(*latest, "c");  // b's answer was filed
  EXPECT_EQ(Name(*latest), "b");
  EXPECT_EQ(Name(*latest), "");
  call->Succeed();
}

TEST_F(Latest, AnErrorIsNoNewsWhileANewerRequestIsUnderWay) {
  const auto latest = Make(/*in_flight=*/2);
  const auto superseded = Send(*latest, "a");
  const auto newer = Send(*latest, "b");
  superseded->Fail(absl::AbortedError("superseded"));
  const auto third = Send(*latest, "c");
  EXPECT_EQ(Name(*latest), "");
  newer->Succeed();
  EXPECT_EQ(Name(*latest, kSoon), "b");
  third->Succeed();
}

TEST_F(Latest, AfterARefusalTheNewestObservationIsAskedAbout) {
  const auto latest = Make();
  Send(*latest, "a")
      ->Fail(FromGrpc(RefusalWithRetry(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                       absl::Milliseconds(500))));
  EXPECT_TRUE(absl::IsResourceExhausted(latest->Newest(kSoon).status()));
  ASSERT_TRUE(latest->Observe(Named("b")).ok());  // during the pause
  const auto call = Send(*latest, "c");
  EXPECT_EQ(call->name, "c");
  call->Succeed();
}

TEST_F(Latest, TheEndDoesNotWaitOutAPause) {
  const auto latest = Make();
  Send(*latest, "a")
      ->Fail(FromGrpc(RefusalWithRetry(grpc::StatusCode::RESOURCE_EXHAUSTED,
                                       absl::Hours(1))));
  EXPECT_TRUE(absl::IsResourceExhausted(latest->Newest(kSoon).status()));
}

TEST_F(Latest, LimitsThatAreNoneAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(
      LatestOnly::Create({}, {.max_age = absl::ZeroDuration()}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      LatestOnly::Create({}, {.max_age = absl::InfiniteDuration()}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      LatestOnly::Create({}, {.max_age = kMaxAge, .in_flight = 0}).status()));
}

TEST(LatestOfAServer, AnswersWithChunks) {
  FakeService service;
  const auto client = *PolicyClient::Connect(
      {.address = service.address(), .api_key = "", .tls = {}});
  const auto latest = *LatestOnly::Create(
      [&](const ObservationIn& observation, const CallOptions& call) {
        return client->Infer(observation, call);
      },
      {.max_age = kSoon});
  ASSERT_TRUE(latest->Observe(FakeObservation()).ok());
  const auto chunk = latest->Newest(kSoon);
  ASSERT_TRUE(chunk.ok() && chunk->has_value()) << chunk.status();
  EXPECT_EQ((*chunk)->chunk.horizon, 2);
  EXPECT_LE(service.budgets()[0], kSoon * 1.01);
}

}  // namespace
}  // namespace piserve::client
