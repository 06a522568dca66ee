// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/clock.h"
#include "batching/executor.h"
#include "batching/mutex.h"
#include "server/hosted_policy.h"
#include "server/scheduler_observer.h"
#include "server/task.h"
#include "server/worker_pool.h"

namespace piserve::server {

// The compatibility key of tasks: the same policy and the same step count.
std::uint64_t CompatibilityOf(int policy_index, int steps);

// Runs waves of one hosted policy: fills a slot, submits it, and answers every
// row from the worker pool.
class PolicyExecutor : public batching::Executor<TaskPtr> {
 public:
  // All are borrowed and outlive the executor.
  PolicyExecutor(int policy_index, const HostedPolicy& hosted, WorkerPool& pool,
                 const batching::Clock& clock, SchedulerObserver& observer);
  ~PolicyExecutor() override;

  const std::vector<int>& sizes() const override;
  int slots() const override;
  bool Serves(std::uint64_t compatibility) const override;
  absl::Duration Predict(const batching::WaveCost& cost) const override;
  bool healthy() const override;
  void Launch(std::vector<TaskPtr> wave, std::function<void()> done) override;

  // How far the oldest running wave is beyond factor * predicted + floor;
  // negative or zero: nothing is late. For the watchdog.
  absl::Duration Overdue(double factor, absl::Duration floor) const;

  // The device hangs: answers every row of the running waves with INTERNAL,
  // reason DEVICE_FAULT, and is unhealthy from now on. A late completion is
  // dropped.
  void Abandon();

 private:
  struct RunningWave;
  using WavePtr = std::shared_ptr<RunningWave>;

  absl::Status Fill(RunningWave& wave);
  void Complete(const WavePtr& wave, WaveResult result);
  void Answer(RunningWave& wave, WaveResult result);
  void AnswerRow(RunningWave& wave, int row, const WaveResult& result);
  absl::StatusOr<std::vector<float>> RobotActions(
      const InferenceTask& task, int row, const WaveResult& result) const;
  InferenceReply Reply(const InferenceTask& task,
                       std::vector<float> actions) const;
  void Forget(const RunningWave& wave);
  // Answers all rows alike. The wave must have been taken by its caller.
  static void Fail(RunningWave& wave, const absl::Status& status);

  const int policy_index_;
  const HostedPolicy& hosted_;
  WorkerPool& pool_;
  const batching::Clock& clock_;
  SchedulerObserver& observer_;
  std::atomic<bool> abandoned_ = false;

  mutable batching::Mutex mutex_;
  std::vector<WavePtr> running_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace piserve::server
