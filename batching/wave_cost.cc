// SPDX-License-Identifier: Apache-2.0
#include "batching/wave_cost.h"

#include <algorithm>

namespace piserve::batching {
namespace {

// Waking, choosing and launching, as tests/batching/batcher_benchmark measures.
constexpr absl::Duration kLaunchCost = absl::Microseconds(20);

}  // namespace

int SizeFor(const ExecutorTraits& executor, int rows) {
  for (int size : executor.sizes()) {
    if (size >= rows) return size;
  }
  return executor.sizes().back();
}

WaveCost CostOf(const TaskTraits& task) {
  return {1, task.cameras, task.prompt_tokens, task.steps};
}

WaveCost Max(const WaveCost& a, const WaveCost& b) {
  return {a.rows, std::max(a.cameras, b.cameras),
          std::max(a.prompt_tokens, b.prompt_tokens),
          std::max(a.steps, b.steps)};
}

absl::Duration TimeOf(const ExecutorTraits& executor, WaveCost cost, int size) {
  cost.rows = size;
  return executor.Predict(cost);
}

absl::Duration TimePerRow(absl::Duration time, int rows) {
  return (time + kLaunchCost) / rows;
}

int EfficientSize(const ExecutorTraits& executor, const WaveCost& cost,
                  double slack) {
  absl::Duration best = absl::InfiniteDuration();
  for (int size : executor.sizes()) {
    best = std::min(best, TimePerRow(TimeOf(executor, cost, size), size));
  }
  for (int size : executor.sizes()) {
    if (TimePerRow(TimeOf(executor, cost, size), size) <= best * (1 + slack)) {
      return size;
    }
  }
  return executor.sizes().back();
}

}  // namespace piserve::batching
