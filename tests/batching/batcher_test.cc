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
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

// ---- launching

TEST_F(BatcherTest, AnIdleExecutorGetsItsWaveAtOnce) {
  Build();
  Enqueue(7);
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(7)));
  EXPECT_THAT(observer_.launches,
              ElementsAre(std::tuple(1, 1, LaunchReason::kIdle)));
}

TEST_F(BatcherTest, TheNextWaveFormsWhileTheExecutorIsBusy) {
  Build();
  Occupy();
  Enqueue(1);
  PollAt(1);
  Enqueue(2);
  // A quarter of the running wave's 6.5 ms before its end.
  EXPECT_EQ(PollAt(3), At(4.875));
  Enqueue(3);
  PollAt(4.875);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(0), ElementsAre(1, 2, 3)));
}

TEST_F(BatcherTest, AWaveThatEndsEarlyLeavesNoGap) {
  Build();
  Occupy();
  Enqueue(1);
  PollAt(1);
  FinishAt(2);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(0), ElementsAre(1)));
}

TEST_F(BatcherTest, NoMoreWavesThanSlots) {
  AddExecutor().fake.slots = 2;
  Build();
  Occupy();
  for (int task = 1; task < 50; ++task) {
    Enqueue(task);
    PollAt(4.9 + task);
  }
  EXPECT_EQ(puppets_[0]->pending.size(), 2);
}

TEST_F(BatcherTest, WaveTimesAreTheDevices) {
  Build();
  Occupy();
  Enqueue(1);
  PollAt(5);
  FinishAt(6);
  FinishAt(13);
  EXPECT_THAT(observer_.times, ElementsAre(Ms(6), Ms(7)));
}

TEST_F(BatcherTest, TwoExecutorsShareWhatWaits) {
  AddExecutor();
  AddExecutor();
  Build();
  for (int task = 0; task < 4; ++task) Enqueue(task);
  PollAt(0);
  EXPECT_THAT(waves(0), ElementsAre(ElementsAre(0, 1)));
  EXPECT_THAT(waves(1), ElementsAre(ElementsAre(2, 3)));
}

TEST_F(BatcherTest, WaitsForATaskWhosePreparationIsAlmostOver) {
  Build();
  Ticket first = Admit(Traits());
  clock_.AdvanceTo(At(3));
  batcher_->Enqueue(std::move(first), 0);  // preparation takes 3 ms, it learns
  PollAt(3);
  FinishAt(10);
  Ticket late = Admit(Traits());
  clock_.AdvanceTo(At(12));
  Enqueue(1);  // prepared in no time: the average falls to 2.4 ms
  EXPECT_EQ(PollAt(12), At(12.4));
  EXPECT_EQ(waves().size(), 1);
  batcher_->Enqueue(std::move(late), 2);
  PollAt(12.2);
  EXPECT_THAT(waves().back(), UnorderedElementsAre(1, 2));
}

TEST_F(BatcherTest, ATicketGivenBackIsNotWaitedFor) {
  Build();
  {
    Ticket first = Admit(Traits());
    clock_.AdvanceTo(At(3));
    batcher_->Enqueue(std::move(first), 0);
    PollAt(3);
    FinishAt(10);
    Ticket late = Admit(Traits());
    clock_.AdvanceTo(At(12));
    Enqueue(1);
    PollAt(12);
    EXPECT_EQ(waves().size(), 1);
  }
  PollAt(12);
  EXPECT_EQ(waves().size(), 2);
}

// ---- fairness

TEST_F(BatcherTest, EveryClientIsServedWhileOneIsGreedy) {
  AddExecutor().fake.sizes = {1, 2, 4};
  Build();
  TaskTraits greedy = Traits();
  greedy.client = 1000;
  for (int task = 0; task < 40; ++task) Enqueue(task, greedy);
  for (int task = 100; task < 103; ++task) Enqueue(task, Traits(2000));
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(0, 100, 101, 102)));
}

// ---- draining and the end

TEST_F(BatcherTest, DrainRefusesNewTasksAndLaunchesTheRest) {
  Build();
  Occupy();
  Ticket prepared = Admit(Traits());
  Enqueue(1);
  batcher_->Drain(At(500));
  const Rejection rejection = Refuse(Traits());
  EXPECT_EQ(rejection.reason, RejectReason::kDraining);
  EXPECT_EQ(rejection.retry_after, absl::ZeroDuration());
  batcher_->Enqueue(std::move(prepared), 2);
  EXPECT_FALSE(batcher_->idle());
  PollAt(5);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(0), ElementsAre(1, 2)));
  EXPECT_EQ(std::get<2>(observer_.launches.back()), LaunchReason::kDrain);
  FinishAt(7);
  EXPECT_FALSE(batcher_->idle());
  FinishAt(13);
  EXPECT_TRUE(batcher_->idle());
  EXPECT_THAT(drops_, IsEmpty());
}

TEST_F(BatcherTest, DrainClampsDeadlinesOfAllThatWasAccepted) {
  Build();
  Occupy();
  Ticket prepared = Admit(Traits(10000));
  Enqueue(1, Traits(10000));
  batcher_->Drain(At(4));
  batcher_->Enqueue(std::move(prepared), 2);
  PollAt(3.9);
  EXPECT_THAT(drops_, IsEmpty());
  PollAt(4);
  EXPECT_THAT(drops_, UnorderedElementsAre(Pair(1, DropReason::kExpired),
                                           Pair(2, DropReason::kExpired)));
}

TEST_F(BatcherTest, DestructionDropsWhatWaits) {
  Build();
  Occupy();
  Enqueue(1);
  puppets_[0]->FinishOne();
  batcher_.reset();
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kShutdown)));
}

TEST_F(BatcherTest, IdleOnlyWhenNothingIsLeft) {
  Build();
  EXPECT_TRUE(batcher_->idle());
  Ticket ticket = Admit(Traits());
  EXPECT_FALSE(batcher_->idle());
  batcher_->Enqueue(std::move(ticket), 1);
  PollAt(0);
  EXPECT_FALSE(batcher_->idle());
  puppets_[0]->FinishOne();
  EXPECT_FALSE(batcher_->idle());  // not before the batcher has seen it
  batcher_->Poll();
  EXPECT_TRUE(batcher_->idle());
  EXPECT_EQ(observer_.gauges.rows, 0);
  EXPECT_EQ(observer_.gauges.bytes, 0);
}

// ---- faults

TEST_F(BatcherTest, WhenTheLastExecutorFailsWaitingTasksAreDropped) {
  Build();
  Occupy();
  Enqueue(1);
  puppets_[0]->fake.healthy = false;
  batcher_->CheckHealth();
  PollAt(1);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kNoExecutor)));
  EXPECT_EQ(Refuse(Traits()).reason, RejectReason::kUnhealthy);
}

TEST_F(BatcherTest, AFaultIsNoticedWithoutBeingTold) {
  FakeTraits slow;
  slow.base = absl::Seconds(5);
  slow.slots = 1;
  AddExecutor(slow);
  Build({.predicted = absl::Seconds(20)});
  Enqueue(0, Traits(20000));
  PollAt(0);
  Enqueue(1, Traits(20000));
  EXPECT_LE(PollAt(1), At(101));
}

TEST_F(BatcherTest, TheOtherExecutorTakesOver) {
  AddExecutor();
  AddExecutor();
  Build();
  puppets_[0]->fake.healthy = false;
  for (int task = 0; task < 4; ++task) Enqueue(task);
  PollAt(0);
  EXPECT_THAT(waves(0), IsEmpty());
  EXPECT_THAT(waves(1), ElementsAre(ElementsAre(0, 1, 2, 3)));
}

TEST_F(BatcherTest, TasksOfAPolicyWhoseOnlyExecutorFailedAreDropped) {
  FakeTraits one;
  one.serves = {1};
  FakeTraits two;
  two.serves = {2};
  AddExecutor(one);
  AddExecutor(two);
  Build();
  TaskTraits of_one = Traits();
  of_one.compatibility = 1;
  TaskTraits of_two = Traits();
  of_two.compatibility = 2;
  Enqueue(1, of_one);
  Enqueue(2, of_two);
  puppets_[0]->fake.healthy = false;
  PollAt(0);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kNoExecutor)));
  EXPECT_THAT(waves(1), ElementsAre(ElementsAre(2)));
}

TEST_F(BatcherTest, ACallbackMayCallTheBatcher) {
  FakeTraits traits;
  std::vector<std::unique_ptr<Executor<int>>> all;
  all.push_back(std::make_unique<PuppetExecutor>(traits));
  auto* puppet = static_cast<PuppetExecutor*>(all.back().get());
  Batcher<int>* self = nullptr;
  Batcher<int>::Options options;
  options.clock = &clock_;
  options.drive = Drive::kManual;
  options.dropped = [&](int, DropReason) {
    self->Enqueue(std::get<Ticket>(self->Admit(Traits())), 2);
  };
  Batcher<int> batcher(std::move(options), std::move(all));
  self = &batcher;
  Ticket ticket = std::get<Ticket>(batcher.Admit(Traits()));
  batcher.Cancel(ticket.id());
  batcher.Enqueue(std::move(ticket), 1);
  batcher.Poll();
  EXPECT_THAT(puppet->launched, ElementsAre(ElementsAre(2)));
  puppet->FinishOne();
}

}  // namespace
}  // namespace piserve::batching
