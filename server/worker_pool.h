// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "batching/mutex.h"

namespace piserve::server {

// A fixed number of threads for work that takes milliseconds of a core. Answers
// go before preparations: a request that is nearly done should not wait for one
// that has just come.
//
// Holds as much as is submitted: the caller bounds that (every job belongs to
// an admitted request or to a launched wave). Thread-safe.
class WorkerPool {
 public:
  using Job = absl::AnyInvocable<void() &&>;
  enum class Lane { kAnswer, kPrepare };

  explicit WorkerPool(int threads);
  // Runs what was submitted, then returns.
  ~WorkerPool();
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Submit(Lane lane, Job job);

  // Returns when nothing waits and nothing runs.
  void Quiesce();

 private:
  void Run();

  batching::Mutex mutex_;
  batching::CondVar work_;
  batching::CondVar idle_;
  std::deque<Job> lanes_[2] ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace piserve::server
