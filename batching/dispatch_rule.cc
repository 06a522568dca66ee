// SPDX-License-Identifier: Apache-2.0
#include "batching/dispatch_rule.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "batching/queue_order.h"
#include "batching/wave_choice.h"
#include "batching/wave_cost.h"

namespace piserve::batching {
namespace {

// One executor as the plan goes on: waves that are planned but not launched
// move `free_at`.
struct Lane {
  int executor = 0;
  const ExecutorTraits* traits = nullptr;
  bool idle = false;
  absl::Time free_at;
  absl::Time launch_at;  // when its next wave may be launched
};

absl::Time LaunchAt(const ExecutorState& state, absl::Time now,
                    const DispatchOptions& options) {
  if (state.in_flight == 0) return now;
  if (state.in_flight >= state.traits->slots()) return absl::InfiniteFuture();
  const absl::Duration margin =
      std::min(options.launch_margin, state.last_wave / 4);
  return std::max(now, state.free_at - margin);
}

// Where the next wave would run, and what it would be.
struct Placement {
  Lane* lane = nullptr;
  WaveChoice wave;
};

// Would the tasks being prepared make it worth while to keep an idle device
// waiting?
enum class Waiting { kNo, kPays, kPaysButMissesDeadline };

class Planner {
 public:
  Planner(const DispatchOptions& options, const DispatchInput& input)
      : options_(options), input_(input) {
    for (int i = 0; i < static_cast<int>(input.executors.size()); ++i) {
      const ExecutorState& state = input.executors[i];
      if (!state.traits->healthy()) continue;
      lanes_.push_back({i, state.traits, state.in_flight == 0,
                        std::max(input.now, state.free_at),
                        LaunchAt(state, input.now, options)});
    }
  }

  Decision Plan() {
    Decision decision;
    for (const Lane& lane : lanes_) {
      decision.again = std::min(decision.again, lane.launch_at);
    }
    if (decision.again > input_.now) return decision;  // all are busy

    order_ = ServingOrder(input_.waiting, options_.patience);
    while (!order_.empty()) {
      std::optional<Placement> best = PlaceNext();
      if (!best) {
        order_.erase(order_.begin());  // nobody can answer it in time
      } else if (best->lane->launch_at <= input_.now) {
        return Launch(*std::move(best));
      } else {
        Reserve(*best);
      }
    }
    decision.again = NextLaunch();
    return decision;
  }

 private:
  const TaskTraits& Task(int position) const {
    return *input_.waiting[position];
  }

  // Executors that could share these tasks between them now.
  int FreeLanes(std::uint64_t compatibility) const {
    const auto count =
        std::count_if(lanes_.begin(), lanes_.end(), [&](const Lane& lane) {
          return lane.launch_at <= input_.now &&
                 lane.traits->Serves(compatibility);
        });
    return std::max<int>(1, static_cast<int>(count));
  }

  // The wave of the first waiting task's group on the executor that answers it
  // first.
  std::optional<Placement> PlaceNext() {
    const std::uint64_t group = Task(order_.front()).compatibility;
    const int shares = FreeLanes(group);
    std::optional<Placement> best;
    for (Lane& lane : lanes_) {
      if (!lane.traits->Serves(group)) continue;
      std::optional<WaveChoice> wave =
          ChooseWave({*lane.traits, lane.free_at, input_.waiting, order_, group,
                      lane.launch_at <= input_.now ? shares : 1,
                      options_.efficiency_slack});
      if (!wave) continue;
      if (best && best->lane->free_at + best->wave.predicted <=
                      lane.free_at + wave->predicted) {
        continue;
      }
      best = Placement{&lane, *std::move(wave)};
    }
    return best;
  }

  // Leaves these tasks to an executor that is still busy.
  void Reserve(const Placement& placement) {
    placement.lane->free_at += placement.wave.predicted;
    const std::vector<int>& taken = placement.wave.tasks;
    std::erase_if(order_, [&](int position) {
      return std::find(taken.begin(), taken.end(), position) != taken.end();
    });
  }

  Decision Launch(Placement placement) const {
    const Lane& lane = *placement.lane;
    LaunchReason reason = LaunchReason::kAhead;
    if (static_cast<int>(placement.wave.tasks.size()) ==
        lane.traits->sizes().back()) {
      reason = LaunchReason::kFull;
    } else if (input_.phase == Phase::kDraining) {
      reason = LaunchReason::kDrain;
    } else if (lane.idle) {
      absl::Time until;
      switch (JudgeWaiting(placement, until)) {
        case Waiting::kPays:
          return {std::nullopt, until};
        case Waiting::kPaysButMissesDeadline:
          reason = LaunchReason::kDeadline;
          break;
        case Waiting::kNo:
          reason = LaunchReason::kIdle;
          break;
      }
    }
    return {Wave{lane.executor, std::move(placement.wave.tasks),
                 placement.wave.size, placement.wave.predicted, reason},
            input_.now};
  }

  // Tasks that will join this wave's group soon, the first to be ready first.
  std::vector<const ExpectedTask*> Expected(std::uint64_t compatibility) const {
    std::vector<const ExpectedTask*> expected;
    for (const ExpectedTask& task : input_.expected) {
      // One that is overdue says nothing about when it will come.
      if (task.ready_at > input_.now &&
          task.traits->compatibility == compatibility &&
          task.traits->priority != Class::kBulk) {
        expected.push_back(&task);
      }
    }
    std::sort(expected.begin(), expected.end(),
              [](auto* a, auto* b) { return a->ready_at < b->ready_at; });
    return expected;
  }

  // Compares the sum of all answer times: this wave now and the expected tasks
  // in one after it, or all of them in one wave when the last is ready. `until`
  // is when the first of them should be ready.
  Waiting JudgeWaiting(const Placement& placement, absl::Time& until) const {
    const WaveChoice& wave = placement.wave;
    const ExecutorTraits& traits = *placement.lane->traits;
    const int rows = static_cast<int>(wave.tasks.size());
    const std::uint64_t group = Task(wave.tasks[0]).compatibility;
    if (rows < static_cast<int>(order_.size()) || FreeLanes(group) > 1) {
      return Waiting::kNo;
    }
    absl::Time deadline = absl::InfiniteFuture();
    absl::Time stale_at = absl::InfiniteFuture();
    for (int position : wave.tasks) {
      deadline = std::min(deadline, Task(position).deadline);
      stale_at = std::min(stale_at, Task(position).stale_at);
    }
    Waiting verdict = Waiting::kNo;
    WaveCost cost = wave.cost;
    int more = 0;
    for (const ExpectedTask* task : Expected(group)) {
      ++more;
      cost = Max(cost, CostOf(*task->traits));
      deadline = std::min(deadline, task->traits->deadline);
      if (rows + more > traits.sizes().back()) break;
      const absl::Duration wait = task->ready_at - input_.now;
      const absl::Duration together =
          wait + TimeOf(traits, cost, SizeFor(traits, rows + more));
      const absl::Duration apart = std::max(wave.predicted, wait) +
                                   TimeOf(traits, cost, SizeFor(traits, more));
      const absl::Duration now_sum = wave.predicted * rows + apart * more;
      if (together * (rows + more) >=
          now_sum * (1 - options_.efficiency_slack)) {
        continue;
      }
      if (input_.now + together <= deadline && task->ready_at < stale_at) {
        until = Expected(group).front()->ready_at;
        return Waiting::kPays;
      }
      verdict = Waiting::kPaysButMissesDeadline;
    }
    return verdict;
  }

  absl::Time NextLaunch() const {
    absl::Time next = absl::InfiniteFuture();
    for (const Lane& lane : lanes_) {
      if (lane.launch_at > input_.now) next = std::min(next, lane.launch_at);
    }
    return next;
  }

  const DispatchOptions& options_;
  const DispatchInput& input_;
  std::vector<Lane> lanes_;
  std::vector<int> order_;  // tasks without a place yet
};

}  // namespace

Decision Decide(const DispatchOptions& options, const DispatchInput& input) {
  if (input.waiting.empty()) return {};
  return Planner(options, input).Plan();
}

}  // namespace piserve::batching
