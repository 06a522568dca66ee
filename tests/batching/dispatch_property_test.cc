// SPDX-License-Identifier: Apache-2.0
//
// What holds for every decision of the dispatch rule, on random queues.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "batching/dispatch_rule.h"
#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

using Fake = FakeExecutorTraits<ExecutorTraits>;

class RandomScene {
 public:
  explicit RandomScene(int seed) : random_(seed) {
    const int executors = 1 + Draw(3);
    for (int i = 0; i < executors; ++i) executors_.emplace_back(DrawTraits());
    for (const Fake& executor : executors_) {
      ExecutorState state{&executor, Draw(3), now_, Ms(Draw(30))};
      if (state.in_flight > 0) state.free_at += Ms(Draw(30));
      states_.push_back(state);
    }
    const int tasks = Draw(60);
    for (int i = 0; i < tasks; ++i) tasks_.push_back(DrawTask());
    for (const TaskTraits& task : tasks_) waiting_.push_back(&task);
    const int coming = Draw(2) * Draw(8);
    for (int i = 0; i < coming; ++i) coming_.push_back(DrawTask());
    for (const TaskTraits& task : coming_) {
      expected_.push_back({&task, now_ + Ms(Draw(10) - 3)});
    }
  }

  DispatchInput Input() const {
    return {now_, Phase::kServing, waiting_, expected_, states_};
  }
  const std::vector<TaskTraits>& tasks() const { return tasks_; }
  const std::vector<ExecutorState>& states() const { return states_; }
  absl::Time now() const { return now_; }

 private:
  int Draw(int below) { return static_cast<int>(random_() % below); }

  FakeTraits DrawTraits() {
    FakeTraits traits;
    if (Draw(2) == 0) traits.sizes = {1, 4, 16};
    if (Draw(4) == 0) traits.sizes = {2, 3, 7};
    traits.base = Ms(Draw(20));
    traits.per_row = Ms(0.1 * Draw(30));
    traits.per_camera = Ms(Draw(2));
    traits.slots = 1 + Draw(2);
    traits.healthy = Draw(5) > 0;
    if (Draw(3) == 0) traits.serves = {0, 1};
    return traits;
  }

  TaskTraits DrawTask() {
    TaskTraits task;
    task.arrival = now_ - Ms(Draw(400));
    task.deadline = now_ + Ms(1 + Draw(200));
    if (Draw(5) == 0) task.stale_at = now_ + Ms(1 + Draw(10));
    task.priority = static_cast<Class>(Draw(3));
    task.client = Draw(6);
    task.compatibility = Draw(3);
    task.cameras = Draw(4);
    return task;
  }

  std::mt19937 random_;
  absl::Time now_ = At(1000);
  std::vector<Fake> executors_;
  std::vector<ExecutorState> states_;
  std::vector<TaskTraits> tasks_;
  std::vector<TaskTraits> coming_;
  std::vector<const TaskTraits*> waiting_;
  std::vector<ExpectedTask> expected_;
};

WaveCost CostOfAll(const RandomScene& scene, const Wave& wave) {
  WaveCost cost{wave.size, 0, 0, 0};
  for (int position : wave.tasks) {
    const TaskTraits& task = scene.tasks()[position];
    cost.cameras = std::max(cost.cameras, task.cameras);
    cost.steps = std::max(cost.steps, task.steps);
  }
  return cost;
}

void ExpectSoundWave(const RandomScene& scene, const Wave& wave) {
  ASSERT_FALSE(wave.tasks.empty());
  const ExecutorState& state = scene.states()[wave.executor];
  EXPECT_TRUE(state.traits->healthy());
  EXPECT_LT(state.in_flight, state.traits->slots());

  // The size is the smallest that holds it.
  const std::vector<int>& sizes = state.traits->sizes();
  const int rows = static_cast<int>(wave.tasks.size());
  const auto fits = std::lower_bound(sizes.begin(), sizes.end(), rows);
  ASSERT_NE(fits, sizes.end());
  EXPECT_EQ(wave.size, *fits);

  EXPECT_EQ(wave.predicted, state.traits->Predict(CostOfAll(scene, wave)));
  const absl::Time answered =
      std::max(scene.now(), state.free_at) + wave.predicted;
  const std::set<int> distinct(wave.tasks.begin(), wave.tasks.end());
  EXPECT_EQ(distinct.size(), wave.tasks.size());
  const auto group = scene.tasks()[wave.tasks.front()].compatibility;
  EXPECT_TRUE(state.traits->Serves(group));
  for (int position : wave.tasks) {
    EXPECT_EQ(scene.tasks()[position].compatibility, group);
    EXPECT_LE(answered, scene.tasks()[position].deadline);
  }
}

// Could an idle executor answer one of the tasks in time?
bool SomethingCanBeDone(const RandomScene& scene) {
  for (const ExecutorState& state : scene.states()) {
    if (state.in_flight > 0 || !state.traits->healthy()) continue;
    for (const TaskTraits& task : scene.tasks()) {
      const WaveCost cost{state.traits->sizes().front(), task.cameras,
                          task.prompt_tokens, task.steps};
      if (state.traits->Serves(task.compatibility) &&
          scene.now() + state.traits->Predict(cost) <= task.deadline) {
        return true;
      }
    }
  }
  return false;
}

TEST(DispatchProperty, EveryWaveIsSound) {
  int waves = 0;
  for (int seed = 0; seed < 4000; ++seed) {
    SCOPED_TRACE(seed);
    const RandomScene scene(seed);
    const Decision decision = Decide({}, scene.Input());
    if (!decision.launch) continue;
    ++waves;
    ExpectSoundWave(scene, *decision.launch);
    if (HasFailure()) return;
  }
  EXPECT_GT(waves, 1000);
}

TEST(DispatchProperty, TheSameQueueGetsTheSameDecision) {
  for (int seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(seed);
    const Decision a = Decide({}, RandomScene(seed).Input());
    const Decision b = Decide({}, RandomScene(seed).Input());
    ASSERT_EQ(a.again, b.again);
    ASSERT_EQ(a.launch.has_value(), b.launch.has_value());
    if (a.launch) {
      ASSERT_EQ(a.launch->tasks, b.launch->tasks);
    }
  }
}

// With nothing launched, the rule says when to ask again, or waits for a slot
// that a wave holds, or has nothing that it could do.
TEST(DispatchProperty, NoTaskIsLeftWithoutACause) {
  int waits = 0;
  for (int seed = 0; seed < 4000; ++seed) {
    SCOPED_TRACE(seed);
    const RandomScene scene(seed);
    const Decision decision = Decide({}, scene.Input());
    if (decision.launch) continue;
    EXPECT_GT(decision.again, scene.now());
    if (decision.again < absl::InfiniteFuture()) {
      ++waits;
      continue;
    }
    const bool all_wait_for_a_slot = std::none_of(
        scene.states().begin(), scene.states().end(),
        [](const ExecutorState& state) { return state.in_flight == 0; });
    const bool a_busy_one_is_better =
        std::any_of(scene.states().begin(), scene.states().end(),
                    [](const ExecutorState& state) {
                      return state.in_flight > 0 && state.traits->healthy();
                    });
    EXPECT_TRUE(all_wait_for_a_slot || a_busy_one_is_better ||
                !SomethingCanBeDone(scene));
  }
  EXPECT_GT(waits, 100);
}

}  // namespace
}  // namespace piserve::batching
