// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "model/policy.h"
#include "model/variant.h"

namespace piserve::reference {

class HeapSlot;

// Time that each stage of one row took.
struct RowTimes {
  absl::Duration vision, prefill, denoise;
};

// One thread that runs waves in the order of their submission, row by row, and
// completes each exactly once. Knows no tensor: what computes a row is given.
// Thread-safe.
class WaveWorker {
 public:
  // Computes the actions of one row, whose tokens and counts have been checked.
  // An exception is a device fault.
  using RunRow = std::function<RowTimes(const SlotRow& row, int steps,
                                        std::span<float> actions)>;

  WaveWorker(const Variant& variant, RunRow run_row);

  // Completes what was submitted, then returns. Not from a completion.
  ~WaveWorker();
  WaveWorker(const WaveWorker&) = delete;
  WaveWorker& operator=(const WaveWorker&) = delete;

  // As Policy::Submit. The slot must be a HeapSlot.
  void Submit(Wave wave, Policy::Completion completion);

  bool healthy() const { return healthy_; }

 private:
  struct Job {
    Wave wave;
    Policy::Completion completion;
  };

  void Work();
  WaveResult Run(Wave wave);
  absl::Status CheckWave(const HeapSlot* slot, const WaveShape& shape) const;
  void RunRows(HeapSlot& slot, const WaveShape& shape, WaveResult& result);

  const Variant variant_;
  const RunRow run_row_;
  std::atomic<bool> healthy_ = true;

  std::mutex mutex_;  // guards what follows
  std::deque<Job> jobs_;
  bool stopping_ = false;

  std::condition_variable wake_;  // a job came, or stopping_ was set
  std::thread thread_;            // last: it uses all of the above
};

}  // namespace piserve::reference
