// SPDX-License-Identifier: Apache-2.0
#include "batching/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

using Drops = std::vector<std::pair<int, DropReason>>;

// Counts what it is told; all of it must add up.
class CountingObserver : public Observer {
 public:
  void OnQueue(const QueueGauges& now) override { gauges = now; }
  void OnLaunch(int, int rows, int size, LaunchReason reason) override {
    launches.emplace_back(rows, size, reason);
  }
  void OnWaveDone(int, int, int, absl::Duration time) override {
    times.push_back(time);
  }
  void OnDrop(DropReason reason, Class) override { drops.push_back(reason); }
  void OnReject(RejectReason reason, Class) override {
    rejects.push_back(reason);
  }

  QueueGauges gauges;
  std::vector<std::tuple<int, int, LaunchReason>> launches;
  std::vector<absl::Duration> times;
  std::vector<DropReason> drops;
  std::vector<RejectReason> rejects;
};

class BatcherTest : public testing::Test {
 protected:
  ~BatcherTest() override {
    // Nothing may wait for a wave that nobody will end.
    if (batcher_) Finish();
  }

  PuppetExecutor& AddExecutor(FakeTraits traits = {}) {
    executors_.push_back(std::make_unique<PuppetExecutor>(std::move(traits)));
    puppets_.push_back(executors_.back().get());
    return *puppets_.back();
  }

  void Build(Limits limits = {}) {
    if (executors_.empty()) AddExecutor();
    std::vector<std::unique_ptr<Executor<int>>> all;
    for (auto& executor : executors_) all.push_back(std::move(executor));
    Batcher<int>::Options options;
    options.limits = limits;
    options.clock = &clock_;
    options.observer = &observer_;
    options.dropped = [this](int task, DropReason reason) {
      drops_.emplace_back(task, reason);
    };
    options.drive = Drive::kManual;
    batcher_ =
        std::make_unique<Batcher<int>>(std::move(options), std::move(all));
  }

  TaskTraits Traits(double deadline_ms = 1000) {
    TaskTraits traits;
    traits.arrival = clock_.Now();
    traits.deadline = At(deadline_ms);
    traits.client = next_client_++;
    traits.bytes = 10;
    return traits;
  }

  Ticket Admit(const TaskTraits& traits) {
    auto admitted = batcher_->Admit(traits);
    EXPECT_TRUE(std::holds_alternative<Ticket>(admitted));
    return std::get<Ticket>(std::move(admitted));
  }
  Rejection Refuse(const TaskTraits& traits) {
    auto admitted = batcher_->Admit(traits);
    EXPECT_TRUE(std::holds_alternative<Rejection>(admitted));
    return std::get<Rejection>(admitted);
  }
  TaskId Enqueue(int task, const TaskTraits& traits) {
    Ticket ticket = Admit(traits);
    const TaskId id = ticket.id();
    batcher_->Enqueue(std::move(ticket), task);
    return id;
  }
  TaskId Enqueue(int task) { return Enqueue(task, Traits()); }

  absl::Time PollAt(double ms) {
    clock_.AdvanceTo(At(ms));
    return batcher_->Poll();
  }
  void FinishAt(double ms, int executor = 0) {
    clock_.AdvanceTo(At(ms));
    puppets_[executor]->FinishOne();
    batcher_->Poll();
  }
  // Makes the executor busy until 6.5 ms with task 0.
  void Occupy() {
    Enqueue(0);
    PollAt(0);
    ASSERT_EQ(waves().size(), 1);
  }
  void Finish() {
    batcher_->Poll();
    for (std::size_t i = 0; i < puppets_.size();) {
      if (puppets_[i]->pending.empty()) {
        ++i;
        continue;
      }
      puppets_[i]->FinishOne();
      batcher_->Poll();
      i = 0;
    }
  }
  std::vector<std::vector<int>>& waves(int executor = 0) {
    return puppets_[executor]->launched;
  }

  FakeClock clock_;
  CountingObserver observer_;
  Drops drops_;
  std::vector<std::unique_ptr<PuppetExecutor>> executors_;
  std::vector<PuppetExecutor*> puppets_;
  std::unique_ptr<Batcher<int>> batcher_;
  std::uint64_t next_client_ = 1;
};

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

// ---- what is never launched

TEST_F(BatcherTest, AnExpiredTaskIsDroppedAtItsDeadlineAndNotBefore) {
  Build();
  Occupy();
  Enqueue(1, Traits(30));
  PollAt(2);
  EXPECT_EQ(PollAt(4.8), At(4.875));
  puppets_[0]->fake.slots = 1;  // hangs
  EXPECT_EQ(PollAt(29.9), At(30));
  EXPECT_THAT(drops_, IsEmpty());
  PollAt(30);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kExpired)));
  EXPECT_EQ(waves().size(), 1);
}

TEST_F(BatcherTest, ATaskThatWouldMissItsDeadlineIsNotLaunched) {
  Build();
  Occupy();
  Enqueue(1, Traits(13));  // 6.5 + 6.5 ms
  PollAt(1);
  clock_.AdvanceTo(At(7));  // the first wave is late
  FinishAt(7);
  EXPECT_EQ(waves().size(), 1);
  PollAt(13);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kExpired)));
}

TEST_F(BatcherTest, AStaleTaskIsDropped) {
  Build();
  Occupy();
  TaskTraits traits = Traits();
  traits.stale_at = At(4);
  Enqueue(1, traits);
  EXPECT_EQ(PollAt(1), At(4));
  PollAt(4);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kStale)));
}

TEST_F(BatcherTest, ACancelledTaskIsNeverLaunched) {
  Build();
  const TaskId id = Enqueue(1);
  Enqueue(2);
  batcher_->Cancel(id);
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kCancelled)));
}

TEST_F(BatcherTest, ATaskCancelledWhilePreparedIsDroppedWhenItComes) {
  Build();
  Ticket ticket = Admit(Traits());
  batcher_->Cancel(ticket.id());
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
  batcher_->Enqueue(std::move(ticket), 1);
  PollAt(0);
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kCancelled)));
  EXPECT_THAT(waves(), IsEmpty());
}

TEST_F(BatcherTest, CancellingWhatIsLaunchedOrUnknownDoesNothing) {
  Build();
  const TaskId id = Enqueue(1);
  PollAt(0);
  batcher_->Cancel(id);
  batcher_->Cancel(id + 1);
  FinishAt(5);
  EXPECT_THAT(drops_, IsEmpty());
  EXPECT_TRUE(batcher_->idle());
}

class SupersedeTest : public BatcherTest {
 protected:
  TaskTraits OfRobot(std::uint64_t sequence, bool supersede) {
    TaskTraits traits = Traits();
    traits.client = 5;
    traits.identity = SupersedeKey{9, sequence};
    traits.supersede_older = supersede;
    return traits;
  }
};

TEST_F(SupersedeTest, ANewerTaskReplacesAWaitingOlderOne) {
  Build();
  Enqueue(1, OfRobot(1, true));
  Enqueue(2, OfRobot(2, true));
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kSuperseded)));
}

TEST_F(SupersedeTest, NotUnlessItAsksForIt) {
  Build();
  Enqueue(1, OfRobot(1, true));
  Enqueue(2, OfRobot(2, false));
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
}

TEST_F(SupersedeTest, AnOlderOneThatIsPreparedLaterIsReplacedToo) {
  Build();
  Ticket older = Admit(OfRobot(1, true));
  Enqueue(2, OfRobot(2, true));
  PollAt(0);
  batcher_->Enqueue(std::move(older), 1);
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
  EXPECT_THAT(drops_, ElementsAre(Pair(1, DropReason::kSuperseded)));
}

TEST_F(SupersedeTest, AnOlderOneThatArrivesLaterIsReplacedWhileTheNewerWaits) {
  Build();
  Enqueue(2, OfRobot(2, true));
  Enqueue(1, OfRobot(1, true));
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(2)));
}

TEST_F(SupersedeTest, ANewerOneThatIsNeverEnqueuedReplacesNothing) {
  Build();
  Enqueue(1, OfRobot(1, true));
  { Ticket newer = Admit(OfRobot(2, true)); }
  PollAt(0);
  EXPECT_THAT(waves(), ElementsAre(ElementsAre(1)));
}

TEST_F(SupersedeTest, AnotherClientCannotReplaceThisOnes) {
  Build();
  Enqueue(1, OfRobot(1, true));
  TaskTraits other = OfRobot(2, true);
  other.client = 6;
  Enqueue(2, other);
  PollAt(0);
  EXPECT_THAT(drops_, IsEmpty());
}

// ---- admission

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
