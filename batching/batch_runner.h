// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "batching/dispatch_rule.h"
#include "batching/executor.h"

namespace piserve::batching {

struct LaunchedWave {
  std::uint64_t id = 0;
  int executor = 0;
  int rows = 0;
  int size = 0;
  std::size_t bytes = 0;
  absl::Duration predicted;
  LaunchReason reason = LaunchReason::kIdle;
};

struct EndedWave {
  LaunchedWave wave;
  absl::Duration duration;  // of the device
};

// The slots of one executor: which waves are launched and not done, and when
// the device should have finished them. Not thread-safe; the batcher locks.
class BatchRunner {
 public:
  explicit BatchRunner(const ExecutorTraits* executor) : executor_(executor) {}

  // Takes a slot. Waves run in the order of their Begin.
  void Begin(const LaunchedWave& wave, absl::Time now);

  // Gives the slot back. `id` is of a wave begun and not ended.
  EndedWave End(std::uint64_t id, absl::Time at);

  ExecutorState State(absl::Time now) const;
  bool idle() const { return running_.empty(); }
  std::size_t bytes() const;  // held by launched waves
  const ExecutorTraits& executor() const { return *executor_; }

 private:
  struct Running {
    LaunchedWave wave;
    absl::Time since;  // launched, or first on the device if that is later
  };

  const ExecutorTraits* executor_;
  std::vector<Running> running_;  // the first is on the device
};

}  // namespace piserve::batching
