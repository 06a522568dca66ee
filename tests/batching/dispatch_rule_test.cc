// SPDX-License-Identifier: Apache-2.0
#include "batching/dispatch_rule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

using ::testing::ElementsAre;

using Fake = FakeExecutorTraits<ExecutorTraits>;

struct Task {
  double deadline_ms = 1000;
  Class priority = Class::kControl;
  std::uint64_t client = 0;  // 0: a client of its own
  std::uint64_t compatibility = 0;
  double arrival_ms = 0;
  int cameras = 0;
  double stale_ms = 100000;
};

struct Busy {
  int in_flight = 0;
  double free_at_ms = 0;
  double last_wave_ms = 8;
};

// A queue, some executors and a time; what the rule says of them.
class Scene {
 public:
  Scene& Wait(Task task) {
    tasks_.push_back(Traits(task));
    return *this;
  }
  Scene& Wait(int count, Task task) {
    while (count-- > 0) Wait(task);
    return *this;
  }
  Scene& Expect(double ready_ms, Task task = {}) {
    coming_.push_back(Traits(task));
    ready_.push_back(At(ready_ms));
    return *this;
  }
  Scene& On(FakeTraits traits, Busy busy = {}) {
    executors_.emplace_back(std::move(traits));
    busy_.push_back(busy);
    return *this;
  }
  Scene& Drain() {
    phase_ = Phase::kDraining;
    return *this;
  }
  Decision Now(double ms = 0) const {
    DispatchInput input;
    input.now = At(ms);
    input.phase = phase_;
    std::vector<const TaskTraits*> waiting;
    for (const TaskTraits& task : tasks_) waiting.push_back(&task);
    std::vector<ExpectedTask> expected;
    for (std::size_t i = 0; i < coming_.size(); ++i) {
      expected.push_back({&coming_[i], ready_[i]});
    }
    std::vector<ExecutorState> states;
    for (std::size_t i = 0; i < executors_.size(); ++i) {
      states.push_back({&executors_[i], busy_[i].in_flight,
                        std::max(At(ms), At(busy_[i].free_at_ms)),
                        Ms(busy_[i].last_wave_ms)});
    }
    input.waiting = waiting;
    input.expected = expected;
    input.executors = states;
    return Decide(DispatchOptions{}, input);
  }

 private:
  TaskTraits Traits(const Task& task) {
    TaskTraits traits;
    traits.arrival = At(task.arrival_ms);
    traits.deadline = At(task.deadline_ms);
    traits.stale_at = At(task.stale_ms);
    traits.priority = task.priority;
    traits.client = task.client != 0 ? task.client : next_client_++;
    traits.compatibility = task.compatibility;
    traits.cameras = task.cameras;
    return traits;
  }

  std::uint64_t next_client_ = 1000;
  std::vector<TaskTraits> tasks_;
  std::vector<TaskTraits> coming_;
  std::vector<absl::Time> ready_;
  std::vector<Fake> executors_;
  std::vector<Busy> busy_;
  Phase phase_ = Phase::kServing;
};

// Larger waves are almost free: 10 ms, whatever the rows.
FakeTraits Flat() {
  FakeTraits traits;
  traits.base = Ms(10);
  traits.per_row = Ms(0);
  return traits;
}

// 4 rows give nearly all the throughput there is.
FakeTraits SaturatesAtFour() {
  FakeTraits traits;
  traits.table = {{1, Ms(20)},  {2, Ms(22)},   {4, Ms(26)},  {8, Ms(50)},
                  {16, Ms(98)}, {32, Ms(195)}, {64, Ms(390)}};
  return traits;
}

FakeTraits Sizes(std::vector<int> sizes) {
  FakeTraits traits;
  traits.sizes = std::move(sizes);
  return traits;
}

std::vector<int> Tasks(const Decision& decision) {
  return decision.launch ? decision.launch->tasks : std::vector<int>{};
}

// ---- which size

struct SizeRow {
  std::string name;
  FakeTraits executor;
  int waiting;
  double deadline_ms;
  int rows;
  int size;
};

class SizeTable : public testing::TestWithParam<SizeRow> {};

TEST_P(SizeTable, ServesTheWaitingDeadlinesBest) {
  const SizeRow& row = GetParam();
  Task task;
  task.deadline_ms = row.deadline_ms;
  const Decision decision =
      Scene().On(row.executor).Wait(row.waiting, task).Now();
  ASSERT_TRUE(decision.launch);
  EXPECT_EQ(decision.launch->tasks.size(), row.rows);
  EXPECT_EQ(decision.launch->size, row.size);
}

INSTANTIATE_TEST_SUITE_P(
    DispatchRule, SizeTable,
    testing::Values(
        SizeRow{"OneAlone", FakeTraits{}, 1, 1000, 1, 1},
        SizeRow{"LargeWavesWhereTheyAreFree", Flat(), 64, 1000, 64, 64},
        SizeRow{"NoLargerThanWhatIsThere", Flat(), 11, 1000, 11, 16},
        SizeRow{"NotLargeForItsOwnSake", SaturatesAtFour(), 64, 5000, 4, 4},
        // 10 ms for 5 rows and 8 ms for 4 are both 2 ms a row.
        SizeRow{"EqualTimePerRowTakesTheSmaller", Sizes({1, 2, 4, 8}), 5, 1000,
                4, 4},
        // 10 ms for 6 rows beats 2 ms a row by more than a tenth.
        SizeRow{"PaddingPaysWhenItIsCheaperPerRow", Sizes({1, 2, 4, 8}), 6,
                1000, 6, 8},
        // The fifth would be answered at 8 + 6.5 ms.
        SizeRow{"PadsToMeetADeadline", Sizes({1, 2, 4, 8}), 5, 12, 5, 8},
        // 8 rows take 10 ms: nobody would make it. 4 rows take 8 ms.
        SizeRow{"ShrinksToMeetADeadline", Sizes({1, 2, 4, 8}), 8, 9, 4, 4},
        SizeRow{"NeverMoreThanTheLargest", Sizes({1, 4}), 9, 1000, 4, 4}),
    [](const auto& info) { return info.param.name; });

TEST(DispatchRule, AWaveThatTakesNoTimeStillTakesAll) {
  FakeTraits noop;
  noop.base = noop.per_row = Ms(0);
  EXPECT_EQ(Scene().On(noop).Wait(8, {}).Now().launch->tasks.size(), 8);
}

TEST(DispatchRule, ATightDeadlineGoesFirstAloneIfTheOthersSlowItDown) {
  Scene scene;
  scene.On(FakeTraits{}).Wait(7, {}).Wait({.deadline_ms = 6.8});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(7));
}

TEST(DispatchRule, SacrificesTheFewest) {
  // Eight are answered by 10 ms together; the one due at 6.8 ms would cost four
  // of them theirs.
  Scene scene;
  scene.On(FakeTraits{})
      .Wait(8, {.deadline_ms = 10.5})
      .Wait({.deadline_ms = 6.8});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
}

TEST(DispatchRule, ControlIsNotSacrificedForEvaluation) {
  Scene scene;
  scene.On(FakeTraits{})
      .Wait(8, {.deadline_ms = 10.5, .priority = Class::kEvaluation})
      .Wait({.deadline_ms = 6.8});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(8));
}

// ---- which tasks

TEST(DispatchRule, EarliestDeadlineFirst) {
  Scene scene;
  scene.On(Sizes({2}))
      .Wait({.deadline_ms = 90})
      .Wait({.deadline_ms = 70})
      .Wait({.deadline_ms = 80});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(1, 2));
}

TEST(DispatchRule, OldTasksAreNotPassedOverForEver) {
  // Has waited 250 ms: it goes before what came later, whatever its deadline.
  Scene scene;
  scene.On(Sizes({1}))
      .Wait({.deadline_ms = 380, .arrival_ms = 200})
      .Wait({.deadline_ms = 5000, .arrival_ms = 0});
  EXPECT_THAT(Tasks(scene.Now(250)), ElementsAre(1));
}

TEST(DispatchRule, ClassesInOrder) {
  Scene scene;
  scene.On(Sizes({2}))
      .Wait({.deadline_ms = 30, .priority = Class::kBulk})
      .Wait({.deadline_ms = 40, .priority = Class::kEvaluation})
      .Wait({.deadline_ms = 50});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(2, 1));
}

TEST(DispatchRule, BulkFillsSpareRowsAndNoMore) {
  Scene scene;
  scene.On(Flat()).Wait(10, {.priority = Class::kBulk}).Wait(3, {});
  const Decision decision = scene.Now();
  EXPECT_THAT(Tasks(decision), ElementsAre(10, 11, 12, 0));
  EXPECT_EQ(decision.launch->size, 4);
}

TEST(DispatchRule, BulkThatWouldSlowAWaveDownStaysOut) {
  FakeTraits traits;
  traits.per_camera = Ms(1);
  Scene scene;
  scene.On(traits)
      .Wait({.priority = Class::kBulk, .cameras = 3})
      .Wait({.priority = Class::kBulk, .cameras = 1})
      .Wait(3, {.cameras = 1});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(2, 3, 4, 1));
}

TEST(DispatchRule, BulkAloneMakesWavesOfItsOwn) {
  Scene scene;
  scene.On(Flat()).Wait(10, {.priority = Class::kBulk});
  EXPECT_EQ(Tasks(scene.Now()).size(), 10);
}

TEST(DispatchRule, AGreedyClientDoesNotStarveAnother) {
  Scene scene;
  scene.On(Sizes({4}))
      .Wait(20, {.deadline_ms = 50, .client = 1})
      .Wait({.deadline_ms = 200, .client = 2})
      .Wait({.deadline_ms = 100, .client = 3});
  // One each, then the greedy one may fill up.
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(0, 21, 20, 1));
}

TEST(DispatchRule, OnlyEqualCompatibilitySharesAWave) {
  Scene scene;
  scene.On(Flat())
      .Wait({.compatibility = 1})
      .Wait({.compatibility = 2})
      .Wait({.compatibility = 1});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(0, 2));
}

TEST(DispatchRule, ATaskThatWouldMissItsDeadlineStaysOut) {
  Scene scene;
  scene.On(FakeTraits{}).Wait({.deadline_ms = 6.4}).Wait({.deadline_ms = 20});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(1));
}

TEST(DispatchRule, ADeadlineMetExactlyCounts) {
  EXPECT_THAT(Tasks(Scene().On(FakeTraits{}).Wait({.deadline_ms = 6.5}).Now()),
              ElementsAre(0));
}

TEST(DispatchRule, NothingIsLaunchedForTasksThatAllMiss) {
  const Decision decision =
      Scene().On(FakeTraits{}).Wait(3, {.deadline_ms = 6.4}).Now();
  EXPECT_FALSE(decision.launch);
  EXPECT_EQ(decision.again, absl::InfiniteFuture());
}

TEST(DispatchRule, ACostlyTaskDoesNotMakeAnUrgentOneLate) {
  FakeTraits traits;
  traits.per_camera = Ms(2);
  Scene scene;
  scene.On(traits)
      .Wait({.deadline_ms = 10, .cameras = 1})
      .Wait({.deadline_ms = 100, .cameras = 3});
  EXPECT_THAT(Tasks(scene.Now()), ElementsAre(0));
}

// ---- when

struct WhenRow {
  std::string name;
  Scene scene;
  double now_ms;
  std::optional<LaunchReason> launch;
  double again_ms;  // where nothing is launched; < 0: never
};

class WhenTable : public testing::TestWithParam<WhenRow> {};

TEST_P(WhenTable, LaunchesAtTheRightTime) {
  const WhenRow& row = GetParam();
  const Decision decision = row.scene.Now(row.now_ms);
  ASSERT_EQ(decision.launch.has_value(), row.launch.has_value());
  if (row.launch) {
    EXPECT_EQ(decision.launch->reason, *row.launch);
  } else {
    EXPECT_EQ(decision.again,
              row.again_ms < 0 ? absl::InfiniteFuture() : At(row.again_ms));
  }
}

Scene OneWaiting(Busy busy = {}, int slots = 2) {
  FakeTraits traits;
  traits.slots = slots;
  return Scene().On(traits, busy).Wait({});
}

INSTANTIATE_TEST_SUITE_P(
    DispatchRule, WhenTable,
    testing::Values(
        WhenRow{"NobodyWaits", Scene().On(FakeTraits{}), 0, {}, -1},
        WhenRow{"IdleLaunchesAtOnce", OneWaiting(), 0, LaunchReason::kIdle, 0},
        WhenRow{"FullSaysSo", Scene().On(Sizes({1, 2})).Wait(2, {}), 0,
                LaunchReason::kFull, 0},
        WhenRow{"BusyKeepsForming", OneWaiting({1, 30}), 10, {}, 28},
        WhenRow{"BusyAndFullStillKeepsForming",
                Scene().On(Sizes({1, 2}), {1, 30}).Wait(5, {}),
                10,
                {},
                28},
        WhenRow{"LaunchesJustBeforeTheRunningWaveEnds", OneWaiting({1, 30}), 28,
                LaunchReason::kAhead, 0},
        WhenRow{
            "AShortWaveHasAShortMargin", OneWaiting({1, 30, 4}), 28, {}, 29},
        WhenRow{"AnOverdueWaveIsAboutToEnd", OneWaiting({1, 5}), 10,
                LaunchReason::kAhead, 0},
        WhenRow{"NoFreeSlotWaitsForOne", OneWaiting({2, 30}), 29, {}, -1},
        WhenRow{
            "OneSlotIsNeverFilledAhead", OneWaiting({1, 30}, 1), 29, {}, -1},
        WhenRow{"DrainingLaunches", OneWaiting().Expect(1).Drain(), 0,
                LaunchReason::kDrain, 0},
        // 6.5 + 14 ms apart, twice 8 ms together.
        WhenRow{
            "WaitsForATaskThatIsAlmostReady", OneWaiting().Expect(1), 0, {}, 1},
        WhenRow{"DoesNotWaitLong", OneWaiting().Expect(5), 0,
                LaunchReason::kIdle, 0},
        WhenRow{"DoesNotWaitForTheOverdue", OneWaiting().Expect(1), 2,
                LaunchReason::kIdle, 0},
        WhenRow{"DoesNotWaitForBulk",
                OneWaiting().Expect(1, {.priority = Class::kBulk}), 0,
                LaunchReason::kIdle, 0},
        WhenRow{"DoesNotWaitForAnotherGroup",
                OneWaiting().Expect(1, {.compatibility = 9}), 0,
                LaunchReason::kIdle, 0},
        WhenRow{"ADeadlineForbidsToWait",
                Scene().On(FakeTraits{}).Wait({.deadline_ms = 7}).Expect(1), 0,
                LaunchReason::kDeadline, 0},
        WhenRow{"GoingStaleForbidsToWait",
                Scene().On(FakeTraits{}).Wait({.stale_ms = 1}).Expect(1), 0,
                LaunchReason::kDeadline, 0}),
    [](const auto& info) { return info.param.name; });

// ---- where

TEST(DispatchRule, IdleExecutorsShareWhatWaits) {
  const Decision decision =
      Scene().On(FakeTraits{}).On(FakeTraits{}).Wait(8, {}).Now();
  EXPECT_EQ(Tasks(decision).size(), 4);
}

TEST(DispatchRule, TheIdleOneGoesBeforeTheBusyOne) {
  const Decision decision =
      Scene().On(FakeTraits{}, {1, 30}).On(FakeTraits{}).Wait({}).Now(29);
  ASSERT_TRUE(decision.launch);
  EXPECT_EQ(decision.launch->executor, 1);
}

TEST(DispatchRule, WaitsForAFastBusyOneRatherThanUseASlowIdleOne) {
  FakeTraits slow;
  slow.base = Ms(100);
  const Decision decision =
      Scene().On(FakeTraits{}, {1, 30}).On(slow).Wait({}).Now(10);
  EXPECT_FALSE(decision.launch);
  EXPECT_EQ(decision.again, At(28));
}

TEST(DispatchRule, ASlowIdleOneHelpsWhenTheQueueIsLong) {
  FakeTraits slow = Sizes({1, 2, 4});
  slow.base = Ms(50);
  Scene scene;
  scene.On(Sizes({1, 2, 4}), {2, 30}).On(slow).Wait(30, {});
  const Decision decision = scene.Now(10);
  ASSERT_TRUE(decision.launch);
  EXPECT_EQ(decision.launch->executor, 1);
  // The first four, and more, are answered sooner by the fast one.
  EXPECT_GE(decision.launch->tasks.front(), 4);
}

TEST(DispatchRule, AnUnhealthyExecutorGetsNothing) {
  FakeTraits broken;
  broken.healthy = false;
  EXPECT_FALSE(Scene().On(broken).Wait({}).Now().launch);
  const Decision decision =
      Scene().On(broken).On(FakeTraits{}).Wait(2, {}).Now();
  ASSERT_TRUE(decision.launch);
  EXPECT_EQ(decision.launch->executor, 1);
  EXPECT_EQ(decision.launch->tasks.size(), 2);
}

TEST(DispatchRule, AnExecutorRunsOnlyWhatItServes) {
  FakeTraits one;
  one.serves = {1};
  FakeTraits two;
  two.serves = {2};
  Scene scene;
  scene.On(one, {2, 30}).On(two);
  scene.Wait({.compatibility = 1}).Wait({.compatibility = 2});
  const Decision decision = scene.Now();
  ASSERT_TRUE(decision.launch);
  EXPECT_EQ(decision.launch->executor, 1);
  EXPECT_THAT(Tasks(decision), ElementsAre(1));
}

}  // namespace
}  // namespace piserve::batching
