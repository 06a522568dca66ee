// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "batching/mutex.h"

namespace piserve::server {

// Threads for what gRPC's and the policy's threads must not do: decode, resize,
// tokenise, un-normalise. Jobs are bounded by admission, not here.
class WorkerPool {
 public:
  enum class Urgency {
    kAnswer,   // before everything else that waits: a robot waits for it
    kPrepare,  // in order
  };

  explicit WorkerPool(int threads);
  ~WorkerPool();  // runs what was posted, then returns
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  void Post(Urgency urgency, std::function<void()> job);

 private:
  using Job = std::function<void()>;
  void Work();

  batching::Mutex mutex_;
  batching::CondVar posted_;
  std::deque<Job> answers_ ABSL_GUARDED_BY(mutex_);
  std::deque<Job> preparations_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;  // last
};

}  // namespace piserve::server
