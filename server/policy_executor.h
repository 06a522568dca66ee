// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "batching/clock.h"
#include "batching/executor.h"
#include "server/active_request.h"
#include "server/device_work.h"
#include "server/dispatch_observer.h"
#include "server/hang_limit.h"
#include "server/hosted_policy.h"
#include "server/worker_pool.h"

namespace piserve::server {

// Requests that may share a wave: of one policy, with one step count.
std::uint64_t Compatibility(int policy, int steps);

// The policy of one host as the batcher's executor: copies rows into a slot,
// submits it, and turns what comes back into answers on the worker pool, so
// that the policy's own thread is free for its next wave at once.
//
// A wave that hangs is answered by the watchdog (CheckFaults), not by its
// completion, which may never come; if it does come later, it is ignored.
class PolicyExecutor : public batching::Executor<Task> {
 public:
  struct Options {
    int index = 0;  // of the policy
    HangLimit hang;
    std::shared_ptr<DeviceWork> work;  // of all executors on its device
    const batching::Clock* clock = nullptr;
    DispatchObserver* observer = nullptr;
    WorkerPool* pool = nullptr;
    // One thread, which submits; null: who calls Launch does. A device that
    // hangs can hold it up.
    WorkerPool* launcher = nullptr;
  };

  // All is borrowed and outlives the executor; `host.policy` may still call a
  // completion after that.
  PolicyExecutor(const HostedPolicy& host, Options options);
  ~PolicyExecutor() override;

  const std::vector<int>& sizes() const override;
  int slots() const override;
  const void* device() const override;
  bool Serves(std::uint64_t compatibility) const override;
  absl::Duration Predict(const batching::WaveCost& cost) const override;
  bool healthy() const override;
  void Launch(std::vector<Task> wave, std::function<void()> done) override;

  // To be called every few 10 ms. If a wave hangs, takes the device out for
  // good and answers what it holds with UNAVAILABLE (DEVICE_FAULT).
  // Thread-safe. Returns healthy().
  bool CheckFaults();

  // The same without a look: the device's fault was found, and reported, by
  // another policy's executor.
  void TakeOut();

 private:
  class State;

  const std::shared_ptr<State> state_;
};

}  // namespace piserve::server
