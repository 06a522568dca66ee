// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/time/time.h"

namespace piserve::batching {

// Names an admitted task for as long as the batcher lives. Never 0.
using TaskId = std::uint64_t;

enum class Class { kControl, kEvaluation, kBulk };

// A newer task of the same robot (and client) replaces a waiting older one.
struct SupersedeKey {
  std::uint64_t robot = 0;  // hash of the robot's id
  std::uint64_t sequence = 0;
};

// All that batching knows of a task. One task is one row.
struct TaskTraits {
  absl::Time arrival;
  absl::Time deadline;                           // answer by then
  absl::Time stale_at = absl::InfiniteFuture();  // launch before then
  Class priority = Class::kControl;
  std::uint64_t client = 0;  // fairness key: clients share waves evenly
  std::size_t bytes = 0;     // held in memory until the task ends
  // Only tasks of equal key share a wave: policy and step count.
  std::uint64_t compatibility = 0;
  int steps = 10;
  int cameras = 3;
  int prompt_tokens = 0;
  std::optional<SupersedeKey> identity;  // set if the robot is named
  bool supersede_older = false;
};

}  // namespace piserve::batching
