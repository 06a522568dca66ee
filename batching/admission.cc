// SPDX-License-Identifier: Apache-2.0
#include "batching/admission.h"

#include <algorithm>
#include <cstdint>
#include <set>

#include "batching/queue_order.h"
#include "batching/wave_cost.h"

namespace piserve::batching {
namespace {

// How soon a client may ask again when no executor is left: one may be put in.
constexpr absl::Duration kUnhealthyRetry = absl::Seconds(1);

struct Lane {
  const ExecutorTraits* traits;
  absl::Time free_at;
  int wave_rows;
  absl::Duration wave_time;
};

std::vector<Lane> Lanes(std::span<const ExecutorState> executors,
                        const WaveCost& cost, int wave_rows, double slack) {
  std::vector<Lane> lanes;
  for (const ExecutorState& state : executors) {
    const int size = wave_rows == 0 ? EfficientSize(*state.traits, cost, slack)
                                    : SizeFor(*state.traits, wave_rows);
    lanes.push_back({state.traits, state.free_at,
                     wave_rows == 0 ? size : std::min(size, wave_rows),
                     TimeOf(*state.traits, cost, size)});
  }
  return lanes;
}

// Of one row, rounded up. At least one task.
WaveCost MeanCost(std::span<const TaskTraits* const> tasks) {
  const auto mean = [&](auto value) {
    std::int64_t sum = 0;
    for (const TaskTraits* task : tasks) sum += value(*task);
    const auto count = static_cast<std::int64_t>(tasks.size());
    return static_cast<int>((sum + count - 1) / count);
  };
  return {1, mean([](const TaskTraits& task) { return task.cameras; }),
          mean([](const TaskTraits& task) { return task.prompt_tokens; }),
          mean([](const TaskTraits& task) { return task.steps; })};
}

// Of a row ahead of the task; its own where there is none.
WaveCost CostAhead(const Ahead& ahead, const TaskTraits& task) {
  return ahead.tasks.empty() ? CostOf(task) : MeanCost(ahead.tasks);
}

// The task and those of `ahead` that are served before it.
std::vector<const TaskTraits*> UpTo(const TaskTraits& task, const Ahead& ahead,
                                    absl::Duration patience) {
  std::vector<const TaskTraits*> tasks = ahead.tasks;
  tasks.push_back(&task);
  std::vector<const TaskTraits*> up_to;
  for (const int position : ServingOrder(tasks, patience)) {
    up_to.push_back(tasks[position]);
    if (tasks[position] == &task) break;
  }
  return up_to;
}

// The soonest answer that any wave size gives behind the tasks that go first,
// at the mean of all their costs; but no sooner than alone.
absl::Duration SoonestAnswer(const Ahead& ahead, const TaskTraits& task,
                             const DispatchOptions& options, absl::Time now) {
  const auto answer = [&](const WaveCost& cost, int rows, int wave_rows) {
    return Foresee(ahead.executors, cost, rows, wave_rows, now,
                   options.efficiency_slack)
        .answer;
  };
  const auto tasks = UpTo(task, ahead, options.patience);
  const WaveCost mean = MeanCost(tasks);
  std::set<int> sizes;
  for (const ExecutorState& state : ahead.executors) {
    sizes.insert(state.traits->sizes().begin(), state.traits->sizes().end());
  }
  absl::Duration soonest = absl::InfiniteDuration();
  for (int size : sizes) {
    soonest =
        std::min(soonest, answer(mean, static_cast<int>(tasks.size()), size));
  }
  return std::max(soonest, answer(CostOf(task), 1, 1));
}

std::optional<RejectReason> BoundReached(const Limits& limits, const Load& load,
                                         const TaskTraits& task,
                                         const Forecast& queue) {
  if (load.rows >= limits.rows) return RejectReason::kRows;
  if (task.bytes > limits.bytes || load.bytes > limits.bytes - task.bytes) {
    return RejectReason::kBytes;
  }
  if (queue.wait > limits.predicted) return RejectReason::kPredictedTime;
  if (load.rows_of_client >= limits.rows_per_client) {
    return RejectReason::kClientLimit;
  }
  return std::nullopt;
}

}  // namespace

Forecast Foresee(std::span<const ExecutorState> executors, const WaveCost& cost,
                 int rows, int wave_rows, absl::Time now, double slack) {
  std::vector<Lane> lanes = Lanes(executors, cost, wave_rows, slack);
  if (lanes.empty()) {
    return {absl::InfiniteDuration(), absl::InfiniteDuration()};
  }
  Forecast forecast;
  while (rows > 0) {
    Lane& lane = *std::min_element(
        lanes.begin(), lanes.end(), [](const Lane& a, const Lane& b) {
          return a.free_at + a.wave_time < b.free_at + b.wave_time;
        });
    const int wave = std::min(rows, lane.wave_rows);
    const absl::Time start = std::max(now, lane.free_at);
    lane.free_at =
        start + (wave == lane.wave_rows
                     ? lane.wave_time
                     : TimeOf(*lane.traits, cost, SizeFor(*lane.traits, wave)));
    forecast.wait = std::max(forecast.wait, start - now);
    forecast.answer = std::max(forecast.answer, lane.free_at - now);
    rows -= wave;
  }
  return forecast;
}

Forecast ForeseeAll(const Ahead& ahead, absl::Time now, double slack) {
  if (ahead.tasks.empty()) return {};
  return Foresee(ahead.executors, MeanCost(ahead.tasks),
                 static_cast<int>(ahead.tasks.size()), 0, now, slack);
}

std::optional<Rejection> Judge(const Limits& limits,
                               const DispatchOptions& options, const Load& load,
                               const TaskTraits& task, absl::Time now) {
  if (load.phase == Phase::kDraining) {
    return Rejection{RejectReason::kDraining, absl::ZeroDuration(), {}};
  }
  const Ahead& ahead = load.ahead;
  if (ahead.executors.empty()) {
    return Rejection{RejectReason::kUnhealthy, kUnhealthyRetry, {}};
  }
  const auto foresee = [&](const WaveCost& cost) {
    return Foresee(ahead.executors, cost,
                   static_cast<int>(ahead.tasks.size()) + 1, 0, now,
                   options.efficiency_slack);
  };
  const WaveCost cost_ahead = CostAhead(ahead, task);
  const WaveCost dearest = Max(CostOf(task), cost_ahead);
  const Forecast forecast = foresee(dearest);
  if (task.deadline <= now) {
    return Rejection{RejectReason::kDeadlinePast, {}, forecast.answer};
  }
  if (now + forecast.answer > task.deadline) {
    const absl::Duration soonest = SoonestAnswer(ahead, task, options, now);
    if (now + soonest > task.deadline) {
      return Rejection{RejectReason::kDeadlineUnreachable, {}, soonest};
    }
  }
  // How long it waits is up to those ahead of it, whatever it costs itself.
  const Forecast queue = cost_ahead == dearest ? forecast : foresee(cost_ahead);
  if (const auto reason = BoundReached(limits, load, task, queue)) {
    // By then what is over the limit, or else one wave, should be gone.
    const absl::Duration retry =
        std::max(queue.wait - limits.predicted, queue.answer - queue.wait);
    return Rejection{*reason, retry, forecast.answer};
  }
  return std::nullopt;
}

}  // namespace piserve::batching
