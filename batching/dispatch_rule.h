// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "batching/executor.h"
#include "batching/observer.h"
#include "batching/task.h"
#include "batching/task_queue.h"

namespace piserve::batching {

struct DispatchOptions {
  // A wave is launched this long before the one before it should end, or a
  // quarter of that one's time if that is less: late enough that late arrivals
  // join, early enough that its inputs are in place.
  absl::Duration launch_margin = absl::Milliseconds(2);
  // A larger wave must serve its rows cheaper by this part to be preferred.
  double efficiency_slack = 0.10;
  // No task is passed over for longer than this by later ones of its class,
  // whatever their deadlines.
  absl::Duration patience = absl::Milliseconds(250);
};

struct ExecutorState {
  const ExecutorTraits* traits = nullptr;
  int in_flight = 0;         // waves launched and not done
  absl::Time free_at;        // when the last of them should end; now if none
  absl::Duration last_wave;  // predicted time of the last of them
};

enum class Phase { kServing, kDraining };

struct DispatchInput {
  absl::Time now;
  Phase phase = Phase::kServing;
  std::span<const TaskTraits* const> waiting;
  std::span<const ExpectedTask> expected;
  std::span<const ExecutorState> executors;
};

struct Wave {
  int executor = 0;          // position in DispatchInput::executors
  std::vector<int> tasks;    // positions in DispatchInput::waiting, in order
  int size = 0;              // rows of the graph that holds it
  absl::Duration predicted;  // on the device
  LaunchReason reason = LaunchReason::kIdle;
};

// Launch a wave now and ask again; or ask again at `again`, or earlier when
// something has happened (InfiniteFuture: only then).
struct Decision {
  std::optional<Wave> launch;
  absl::Time again = absl::InfiniteFuture();
};

// Which wave to launch now, if any. A pure function of its arguments.
//
// Which rows: the order of queue_order.h, of one compatibility key; none that
// would miss its deadline in this wave. Which size: the one that lets fewest
// waiting tasks miss their deadlines (kControl counts before kEvaluation before
// kBulk), and among equals the smallest whose time per row is within
// `efficiency_slack` of the best. Bulk tasks do not enlarge a wave that serves
// others; they fill its spare rows.
//
// When: an idle executor gets its wave at once, unless tasks that are being
// prepared will be there so soon that all are answered earlier by waiting. A
// busy one gets its next wave `launch_margin` before it runs dry.
//
// Where: on the executor that answers first, one that is still busy included.
//
// Expired, stale and cancelled tasks must have been removed from `waiting`.
Decision Decide(const DispatchOptions& options, const DispatchInput& input);

}  // namespace piserve::batching
