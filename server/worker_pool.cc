// SPDX-License-Identifier: Apache-2.0
#include "server/worker_pool.h"

#include <utility>

namespace piserve::server {

WorkerPool::WorkerPool(int threads) {
  threads_.reserve(threads);
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

WorkerPool::~WorkerPool() {
  {
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    work_.NotifyAll();
  }
  for (std::thread& thread : threads_) thread.join();
}

void WorkerPool::Submit(Lane lane, Job job) {
  batching::MutexLock lock(mutex_);
  lanes_[static_cast<int>(lane)].push_back(std::move(job));
  // Under the lock: the job may be the last one, after which the pool may go.
  work_.NotifyOne();
}

void WorkerPool::Quiesce() {
  batching::MutexLock lock(mutex_);
  while (running_ > 0 || !lanes_[0].empty() || !lanes_[1].empty()) {
    idle_.Wait(mutex_);
  }
}

void WorkerPool::Run() {
  batching::MutexLock lock(mutex_);
  while (true) {
    std::deque<Job>& lane = lanes_[0].empty() ? lanes_[1] : lanes_[0];
    if (lane.empty()) {
      if (stopping_) return;
      work_.Wait(mutex_);
      continue;
    }
    Job job = std::move(lane.front());
    lane.pop_front();
    ++running_;
    mutex_.Unlock();
    std::move(job)();
    job = nullptr;  // what it holds goes before anybody may think it is done
    mutex_.Lock();
    --running_;
    idle_.NotifyAll();
  }
}

}  // namespace piserve::server
