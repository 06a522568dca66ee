// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "batching/batcher.h"
#include "batching/clock.h"
#include "batching/observer.h"
#include "server/active_request.h"
#include "server/config.h"
#include "server/dispatch_observer.h"
#include "server/hosted_policy.h"
#include "server/inference.h"
#include "server/policy_executor.h"
#include "server/worker_pool.h"

namespace piserve::server {

// From a request to its one answer.
//
//   Start     checks, in this order: draining, policy, digest, contents; then
//   the batcher's: deadline past, deadline out of
//             reach, bounds. Microseconds, on the caller's thread.
//   worker    decodes, resizes, normalises, tokenises, draws noise
//   batcher   waits for a wave
//   executor  copies the row in; the policy runs
//   worker    back to robot units; answers
//
// Thread-safe. Every request is answered exactly once, whatever happens.
class Dispatcher : public Inference {
 public:
  struct Options {
    LimitsConfig limits;
    int workers = 1;
    WatchdogConfig watchdog;
    const batching::Clock* clock = &batching::Clock::Real();
    batching::Observer* batching_observer = nullptr;  // may be null
    DispatchObserver* observer = nullptr;
  };

  // All is borrowed and outlives the dispatcher. At least one policy; names are
  // distinct.
  Dispatcher(Options options, std::vector<const HostedPolicy*> policies);

  // Answers what waits (UNAVAILABLE) and returns when everything is answered.
  // No Start may be running or follow, and no Cancel may be called afterwards.
  ~Dispatcher() override;

  Cancel Start(InferenceRequest request, Done done) override;

  // Refuses new requests and answers those taken by `until` at the latest.
  // Returns at once.
  void Drain(absl::Time until);

  // OK, or the UNAVAILABLE that every request would get now.
  absl::Status Availability() const;

  // Requests taken and not answered.
  int in_flight() const { return context_.in_flight; }

  // To be called every few 10 ms from one thread: takes out devices that failed
  // or hang. False once none is left.
  bool CheckFaults();
  // Whether one at least is out.
  bool lost_device() const;

 private:
  // Fills in what follows from the policy. Not OK: refused.
  absl::Status Check(ActiveRequest& request) const;
  absl::Status FindPolicy(ActiveRequest& request) const;
  static absl::Status CheckSteps(ActiveRequest& request);
  static absl::Status CheckNoise(ActiveRequest& request);
  void SetDeadline(ActiveRequest& request) const;
  batching::TaskTraits TraitsOf(const ActiveRequest& request) const;
  void Prepare(Task task, batching::Ticket ticket);

  const Options options_;
  const std::vector<const HostedPolicy*> policies_;
  std::atomic<bool> draining_ = false;
  RequestContext context_;
  WorkerPool pool_;
  // Of each device where there are several: one that hangs must not hold up the
  // others' waves. Where there is one, a hand-over less.
  std::vector<std::unique_ptr<WorkerPool>> launchers_;
  std::vector<PolicyExecutor*> executors_;  // the batcher's
  std::unique_ptr<batching::Batcher<Task>> batcher_;
};

}  // namespace piserve::server
