// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "batching/dispatch_rule.h"
#include "batching/executor.h"
#include "batching/observer.h"
#include "batching/task.h"

namespace piserve::batching {

// How much may be accepted and not answered. Each bound holds at any load.
struct Limits {
  int rows = 128;                  // admitted and not launched
  std::size_t bytes = 512u << 20;  // admitted and not answered
  // Until the last admitted task's wave would start.
  absl::Duration predicted = absl::Milliseconds(250);
  int rows_per_client = 96;  // of `rows`
};

struct Rejection {
  RejectReason reason = RejectReason::kRows;
  absl::Duration retry_after;  // when it may fare better; 0: elsewhere
  absl::Duration predicted;    // until it would have been answered
};

// What stands between a task of some compatibility key and its answer.
struct Ahead {
  // Those that are healthy and serve it.
  std::vector<ExecutorState> executors;
  // Admitted and not launched, for the devices of these; in any order.
  std::vector<const TaskTraits*> tasks;
};

// What is accepted already.
struct Load {
  int rows = 0;
  std::size_t bytes = 0;
  int rows_of_client = 0;  // the new task's
  Ahead ahead;             // of the new task
  Phase phase = Phase::kServing;
};

// When the last of `rows` rows would start and be answered.
struct Forecast {
  absl::Duration wait;
  absl::Duration answer;
};

// Rows of `cost` behind what the executors are running, in waves of at most
// `wave_rows` rows; 0: each executor's efficient size. Infinite
// without executors.
Forecast Foresee(std::span<const ExecutorState> executors, const WaveCost& cost,
                 int rows, int wave_rows, absl::Time now, double slack);

// Of all that is ahead, at the executors' efficient sizes.
Forecast ForeseeAll(const Ahead& ahead, absl::Time now, double slack);

// May the task come in? Checks, in this order: draining, an executor that
// serves it, deadline past, deadline within reach, bounds. A deadline counts as
// out of reach only if no way to cut the tasks ahead of it into waves would
// meet it.
std::optional<Rejection> Judge(const Limits& limits,
                               const DispatchOptions& options, const Load& load,
                               const TaskTraits& task, absl::Time now);

}  // namespace piserve::batching
