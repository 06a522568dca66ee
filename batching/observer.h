// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "absl/time/time.h"
#include "batching/task.h"

namespace piserve::batching {

// Why a wave was launched when it was.
enum class LaunchReason {
  kFull,      // the largest size is filled
  kDeadline,  // waiting longer would miss a deadline
  kIdle,      // the executor is free and waiting would not pay
  kAhead,     // the running wave is about to end: its successor must be there
  kDrain,     // shutting down
};

// Why a waiting task ended without being launched.
enum class DropReason {
  kExpired,     // its deadline passed
  kCancelled,   // by Cancel
  kStale,       // its stale_at passed
  kSuperseded,  // the same robot sent a newer one
  kNoExecutor,  // no healthy executor that serves it is left
  kShutdown,    // the batcher is being destroyed
};

// Why a task was not let in.
enum class RejectReason {
  kRows,
  kBytes,
  kPredictedTime,
  kClientLimit,
  kDeadlinePast,
  kDeadlineUnreachable,
  kDraining,
  kUnhealthy,
};

struct QueueGauges {
  int rows = 0;              // admitted and not launched, those being prepared
                             // included
  std::size_t bytes = 0;     // admitted and not finished
  absl::Duration predicted;  // until the last of them would be answered
};

// Told what happens, for metrics. Called under no lock; must not block or call
// back. OnReject comes from the thread that asked, the rest from the batch
// thread.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnQueue(const QueueGauges&) {}
  virtual void OnLaunch(int /*executor*/, int /*rows*/, int /*size*/,
                        LaunchReason) {}
  // The time is the device's: from launch, or from the end of the wave before
  // it if that was later, to done.
  virtual void OnWaveDone(int /*executor*/, int /*rows*/, int /*size*/,
                          absl::Duration) {}
  virtual void OnDrop(DropReason, Class) {}
  virtual void OnReject(RejectReason, Class) {}
};

}  // namespace piserve::batching
