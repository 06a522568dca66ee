// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <utility>

namespace piserve::server {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Work(); });
}

WorkerPool::~WorkerPool() {
  {
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    posted_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Post(Urgency urgency, std::function<void()> job) {
  batching::MutexLock lock(mutex_);
  (urgency == Urgency::kAnswer ? answers_ : preparations_)
      .push_back(std::move(job));
  posted_.NotifyOne();
}

void WorkerPool::Work() {
  for (;;) {
    Job job;
    {
      batching::MutexLock lock(mutex_);
      while (answers_.empty() && preparations_.empty() && !stopping_) {
        posted_.Wait(mutex_);
      }
      if (answers_.empty() && preparations_.empty()) return;
      std::deque<Job>& from = answers_.empty() ? preparations_ : answers_;
      job = std::move(from.front());
      from.pop_front();
    }
    job();
  }
}

}  // namespace piserve::server
