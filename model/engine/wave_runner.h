// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "model/engine/network.h"
#include "model/engine/slots.h"
#include "model/engine/stage_timer.h"
#include "model/policy.h"

namespace piserve::engine {

// Enqueues waves as they come and completes them in order, each exactly once,
// on a thread of its own. Thread-safe.
class WaveRunner {
 public:
  // Borrows the network, which nobody else uses from now on.
  explicit WaveRunner(Network& network);

  // Completes what was submitted, then returns. Not from a completion.
  ~WaveRunner();
  WaveRunner(const WaveRunner&) = delete;
  WaveRunner& operator=(const WaveRunner&) = delete;

  // As Policy::Submit. The slot must be a PinnedSlot.
  void Submit(Wave wave, Policy::Completion completion);

  bool healthy() const { return healthy_; }

 private:
  struct Job {
    WaveResult result;
    WaveShape shape;
    Policy::Completion completion;
    std::unique_ptr<StageTimer> timer;
    absl::Status status;  // of enqueueing
  };

  absl::Status CheckWave(const PinnedSlot* slot, const WaveShape& shape) const;
  void CheckRows(PinnedSlot& slot, WaveResult& result) const;
  absl::Status Enqueue(PinnedSlot& slot, Job& job);
  void Work();
  void Finish(Job& job);

  Network& network_;
  std::atomic<bool> healthy_ = true;

  std::mutex submit_mutex_;  // one thread enqueues at a time
  std::mutex mutex_;         // guards what follows
  std::deque<Job> jobs_;
  std::vector<std::unique_ptr<StageTimer>> idle_timers_;
  bool stopping_ = false;

  std::condition_variable wake_;  // a job came, or stopping_ was set
  std::thread thread_;            // last: it uses all of the above
};

}  // namespace piserve::engine
