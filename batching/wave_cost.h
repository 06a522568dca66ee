// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "batching/executor.h"
#include "batching/task.h"

namespace piserve::batching {

// The smallest size that holds `rows` rows; the largest if none does.
int SizeFor(const ExecutorTraits& executor, int rows);

// The cost of one row alone.
WaveCost CostOf(const TaskTraits& task);

// The cost of a wave of both: the maxima, rows left as in `a`.
WaveCost Max(const WaveCost& a, const WaveCost& b);

// Predicted time of a wave of this size.
absl::Duration TimeOf(const ExecutorTraits& executor, WaveCost cost, int size);

// Time per row of a wave that takes `time`. Counts what a launch costs the
// host, so that waves pay even where the device takes no time at all.
absl::Duration TimePerRow(absl::Duration time, int rows);

// The smallest size whose time per row, when full, is within `slack` of the
// best: larger waves only add latency.
int EfficientSize(const ExecutorTraits& executor, const WaveCost& cost,
                  double slack);

}  // namespace piserve::batching
