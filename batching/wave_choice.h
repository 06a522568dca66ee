// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "absl/time/time.h"
#include "batching/executor.h"
#include "batching/task.h"

namespace piserve::batching {

// A wave that one executor could run next.
struct WaveQuestion {
  const ExecutorTraits& executor;
  absl::Time start;  // when the device would take it up
  std::span<const TaskTraits* const> waiting;
  std::span<const int> order;  // positions in `waiting`, in serving order
  std::uint64_t compatibility = 0;
  int shares = 1;      // executors that are free to share these tasks now
  double slack = 0.0;  // DispatchOptions::efficiency_slack
};

struct WaveChoice {
  std::vector<int> tasks;  // positions in WaveQuestion::waiting
  int size = 0;
  WaveCost cost;
  absl::Duration predicted;
};

// The wave that serves the waiting deadlines best, as dispatch_rule.h says.
// Every task in it meets its deadline by prediction. Nothing if no task of that
// compatibility can.
std::optional<WaveChoice> ChooseWave(const WaveQuestion& question);

}  // namespace piserve::batching
