// SPDX-License-Identifier: Apache-2.0
#include "server/energy_sampler.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "batching/clock.h"
#include "batching/mutex.h"

namespace piserve::server {
namespace {

absl::Time Now() { return batching::Clock::Real().Now(); }

}  // namespace

class EnergySampler::State {
 public:
  // The thread, from its start to its end.
  void Run(Options options) {
    Follow(options);
    options = {};  // whoever has seen the end may unload what `energy` is in
    batching::MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  }

  // Returns once the thread has ended or `patience` is over.
  void Stop(absl::Duration patience) {
    const absl::Time until = Now() + patience;
    batching::MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
    while (!ended_ && Now() < until) {
      changed_.WaitFor(mutex_, until - Now());
    }
  }

 private:
  void Follow(const Options& options) {
    std::optional<double> last;
    for (;;) {
      const std::optional<double> joules = options.energy();
      const absl::Time next = Now() + options.interval;
      batching::MutexLock lock(mutex_);
      if (stopping_) return;
      if (joules.has_value()) {
        options.used(std::max(0.0, *joules - last.value_or(*joules)));
        last = joules;
      }
      while (!stopping_ && Now() < next) {
        changed_.WaitFor(mutex_, next - Now());
      }
      if (stopping_) return;
    }
  }

  batching::Mutex mutex_;
  batching::CondVar changed_;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

EnergySampler::EnergySampler(Options options)
    : state_(std::make_shared<State>()), patience_(options.patience) {
  std::thread([state = state_, options = std::move(options)]() mutable {
    state->Run(std::move(options));
  }).detach();
}

EnergySampler::~EnergySampler() { state_->Stop(patience_); }

}  // namespace piserve::server
