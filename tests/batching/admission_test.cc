// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <memory>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "tests/batching/batcher_fixture.h"

namespace piserve::batching {
namespace {

using ::testing::ElementsAre;

TEST_F(BatcherTest, RowsAreBoundedThoseBeingPreparedIncluded) {
  Build({.rows = 3});
  Ticket a = Admit(Traits());
  Ticket b = Admit(Traits());
  Enqueue(1);
  const Rejection rejection = Refuse(Traits());
  EXPECT_EQ(rejection.reason, RejectReason::kRows);
  EXPECT_GT(rejection.retry_after, absl::ZeroDuration());
  EXPECT_THAT(observer_.rejects, ElementsAre(RejectReason::kRows));
  { Ticket released = std::move(a); }
  Admit(Traits());
}

TEST_F(BatcherTest, BytesAreBoundedUntilTheAnswer) {
  Build({.bytes = 25});
  Enqueue(1);
  PollAt(0);
  Enqueue(2);
  EXPECT_EQ(Refuse(Traits()).reason, RejectReason::kBytes);
  EXPECT_EQ(batcher_->gauges().bytes, 20);
  FinishAt(6.5);
  EXPECT_EQ(batcher_->gauges().bytes, 10);
  Admit(Traits());
}

TEST_F(BatcherTest, ATaskOfMoreBytesThanTheLimitIsRefusedWithoutOverflow) {
  Build({.bytes = 25});
  TaskTraits traits = Traits();
  traits.bytes = static_cast<std::size_t>(-1);
  EXPECT_EQ(Refuse(traits).reason, RejectReason::kBytes);
}

TEST_F(BatcherTest, ATicketTakesItsRealSize) {
  Build({.bytes = 25});
  Ticket ticket = Admit(Traits());
  ticket.Resize(22);
  EXPECT_EQ(batcher_->gauges().bytes, 22);
  EXPECT_EQ(Refuse(Traits()).reason, RejectReason::kBytes);
}

TEST_F(BatcherTest, ATicketTakesItsRealCost) {
  AddExecutor().fake.per_camera = Ms(10);
  Build();
  TaskTraits traits = Traits();
  traits.cameras = 1;
  Ticket ticket = Admit(traits);
  const absl::Duration before = batcher_->gauges().predicted;
  ticket.SetCost(3, 0);
  EXPECT_EQ(batcher_->gauges().predicted, before + Ms(20));
}

// Two policies, of which one has four waves of 100 ms before it.
class TwoPoliciesTest : public BatcherTest {
 protected:
  void Build(const void* device) {
    FakeTraits slow;
    slow.sizes = {1};
    slow.base = Ms(100);
    slow.per_row = Ms(0);
    slow.device = device;
    for (const std::uint64_t key : {1, 2}) {
      slow.serves = {key};
      AddExecutor(slow);
    }
    BatcherTest::Build({.predicted = Ms(350)});
    for (int task = 0; task < 4; ++task) Enqueue(task, Of(1));
  }
  TaskTraits Of(std::uint64_t policy) {
    TaskTraits traits = Traits();
    traits.compatibility = policy;
    return traits;
  }
};

TEST_F(TwoPoliciesTest, NeitherWaitsForTheOthersDevice) {
  Build(nullptr);
  EXPECT_EQ(batcher_->gauges().predicted, Ms(400));
  EXPECT_EQ(Refuse(Of(1)).reason, RejectReason::kPredictedTime);
  const Ticket ticket = Admit(Of(2));
  EXPECT_EQ(batcher_->gauges().predicted, Ms(400));
}

TEST_F(TwoPoliciesTest, BothWaitForTheDeviceThatTheyShare) {
  Build(&clock_);
  EXPECT_EQ(Refuse(Of(1)).reason, RejectReason::kPredictedTime);
  EXPECT_EQ(Refuse(Of(2)).reason, RejectReason::kPredictedTime);
}

TEST_F(BatcherTest, PredictedWaitingTimeIsBounded) {
  FakeTraits slow;
  slow.sizes = {1};
  slow.base = Ms(100);
  slow.per_row = Ms(0);
  AddExecutor(slow);
  Build({.predicted = Ms(250)});
  Admit(Traits());
  std::vector<Ticket> tickets;
  for (int i = 0; i < 3; ++i) tickets.push_back(Admit(Traits()));
  // The fourth would wait 300 ms.
  const Rejection rejection = Refuse(Traits());
  EXPECT_EQ(rejection.reason, RejectReason::kPredictedTime);
  EXPECT_EQ(rejection.predicted, Ms(400));
  EXPECT_EQ(rejection.retry_after, Ms(100));
}

TEST_F(BatcherTest, ASlowPolicyStillServesOneAtATime) {
  FakeTraits slow;
  slow.base = absl::Seconds(3);
  AddExecutor(slow);
  Build();
  Enqueue(1, Traits(10000));
  EXPECT_EQ(PollAt(0), absl::InfiniteFuture());
  EXPECT_EQ(waves().size(), 1);
}

TEST_F(BatcherTest, AClientIsBoundedAndLeavesRoomForOthers) {
  Build({.rows = 10, .rows_per_client = 4});
  std::vector<Ticket> tickets;
  TaskTraits greedy = Traits();
  for (int i = 0; i < 4; ++i) tickets.push_back(Admit(greedy));
  EXPECT_EQ(Refuse(greedy).reason, RejectReason::kClientLimit);
  tickets.push_back(Admit(Traits()));
}

TEST_F(BatcherTest, ADeadlineInThePastIsRefused) {
  Build();
  EXPECT_EQ(Refuse(Traits(0)).reason, RejectReason::kDeadlinePast);
}

TEST_F(BatcherTest, ADeadlineOutOfReachIsRefusedWithThePrediction) {
  Build();
  const Rejection rejection = Refuse(Traits(6.4));
  EXPECT_EQ(rejection.reason, RejectReason::kDeadlineUnreachable);
  EXPECT_EQ(rejection.predicted, Ms(6.5));
  Admit(Traits(6.5));
}

TEST_F(BatcherTest, ATightDeadlineGetsInAheadOfARelaxedQueue) {
  FakeTraits slow;
  slow.sizes = {1};
  slow.base = Ms(10);
  slow.per_row = Ms(0);
  AddExecutor(slow);
  Build();
  for (int task = 0; task < 20; ++task) Enqueue(task, Traits(240));
  PollAt(0);
  Enqueue(99, Traits(21));
  PollAt(8);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(0), ElementsAre(99)));
}

// A wave takes 10 ms, and as much again for each camera.
class MixedCostsTest : public BatcherTest {
 protected:
  void SetUp() override {
    FakeTraits slow;
    slow.sizes = {1};
    slow.base = Ms(10);
    slow.per_row = Ms(0);
    slow.per_camera = Ms(10);
    AddExecutor(slow);
    Build();
  }
  TaskTraits Of(int cameras, double deadline_ms) {
    TaskTraits traits = Traits(deadline_ms);
    traits.cameras = cameras;
    return traits;
  }
};

TEST_F(MixedCostsTest, ACheapTaskThatGoesFirstIsNotTakenForADearOne) {
  const Ticket dear = Admit(Of(3, 500));
  EXPECT_EQ(Refuse(Of(1, 19)).predicted, Ms(20));
  Admit(Of(1, 20));
}

TEST_F(MixedCostsTest, CheapTasksAheadOfADearOneAreNotTakenForDearOnes) {
  const Ticket cheap = Admit(Of(1, 20));
  EXPECT_EQ(Refuse(Of(3, 59)).predicted, Ms(60));
  Admit(Of(3, 60));
}

TEST_F(MixedCostsTest, ADearTaskIsNotTakenForACheapOne) {
  FakeTraits& executor = puppets_[0]->fake;
  executor.sizes = {1, 4};
  const Ticket a = Admit(Of(1, 30));
  const Ticket b = Admit(Of(1, 30));
  EXPECT_EQ(Refuse(Of(3, 39)).predicted, Ms(40));
  Admit(Of(3, 40));
}

TEST_F(MixedCostsTest, HowLongATaskWaitsIsUpToThoseAheadOfIt) {
  std::vector<Ticket> cheap;
  for (int i = 0; i < 12; ++i) cheap.push_back(Admit(Of(1, 1000)));
  // 240 ms; a wave of its own cost takes twice the time of those.
  cheap.push_back(Admit(Of(3, 1000)));
  EXPECT_EQ(Refuse(Of(1, 1000)).reason, RejectReason::kPredictedTime);
}

TEST_F(BatcherTest, AReservationCountsAsWork) {
  FakeTraits slow;
  slow.sizes = {1};
  slow.base = Ms(10);
  slow.per_row = Ms(0);
  AddExecutor(slow);
  Build();
  Ticket ticket = Admit(Traits(10));
  EXPECT_EQ(Refuse(Traits(15)).reason, RejectReason::kDeadlineUnreachable);
}

TEST_F(BatcherTest, MovedTicketsReserveOnce) {
  Build();
  Ticket a = Admit(Traits());
  Ticket b = std::move(a);
  Ticket c = Admit(Traits());
  EXPECT_EQ(batcher_->gauges().rows, 2);
  c = std::move(b);
  EXPECT_EQ(batcher_->gauges().rows, 1);
}

}  // namespace
}  // namespace piserve::batching
