// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "model/policy.h"

namespace piserve::testing {

// A policy without a network, for tests and load runs: waves take as long as
// told and actions are what `act` writes. Waves run one after another on a
// thread of its own, in the order of their submission.
class FakePolicy : public Policy {
 public:
  struct Options {
    Variant variant;
    std::vector<int> batch_sizes = {1, 2, 4, 8, 16, 32, 64};
    std::vector<int> step_counts = {10};
    int slots_in_flight = 2;
    // How long a wave of that many rows takes.
    std::function<absl::Duration(int rows)> duration = [](int) {
      return absl::ZeroDuration();
    };
    // What is predicted for it; default: `duration`.
    std::function<absl::Duration(int rows)> predicted;
    // Break() comes after that many waves; absent: never by itself.
    std::optional<int> waves_before_fault;
    // Stages that a wave reports, with their parts of its duration.
    std::vector<std::pair<std::string, double>> stages;
    // Absent: it runs on a CPU.
    std::optional<DeviceFacts> device_facts;
    // Writes [H, action_dim] actions of a row and says how the row ended.
    // Default: zeros.
    std::function<absl::Status(const SlotRow& row, std::span<float> actions)>
        act;
  };

  // Zero actions at once: what is left is the server's own time.
  static Options NoOp(const Variant& variant);

  // Actions are a hash of the row (row_hash.h); a wave of B rows takes
  // 6 + 0.5 B ms.
  static Options Hash(const Variant& variant);

  // The same, but blind to the noise and with the prompt's tokens hashed: equal
  // observations get equal actions, also over a wire that carries no noise.
  static Options Blind(const Variant& variant);

  explicit FakePolicy(Options options);
  ~FakePolicy() override;  // completes what was submitted

  const Capabilities& capabilities() const override { return capabilities_; }
  absl::Duration PredictDuration(const WaveShape& shape) const override;
  absl::StatusOr<std::unique_ptr<Slot>> AcquireSlot(int rows) override;
  void Submit(Wave wave, Completion completion) override;
  bool healthy() const override { return healthy_; }
  std::optional<DeviceFacts> device_facts() const override {
    return options_.device_facts;
  }

  // From now on every wave fails as on a device fault, and healthy() is false.
  void Break() { healthy_ = false; }

  // The running wave, or the next one, does not return before Release().
  void Hang();
  void Release();

  int waves() const { return waves_; }
  int rows() const { return rows_; }

 private:
  class MemorySlot;
  class RowPool;
  struct Job {
    Wave wave;
    Completion completion;
  };

  void Work();
  int SizeFor(int rows) const;  // the smallest batch size that holds them
  void RunWave(Job job);
  void WaitWhileHanging();

  const Options options_;
  Capabilities capabilities_;
  std::shared_ptr<RowPool> pool_;
  std::atomic<bool> healthy_ = true;
  std::atomic<int> waves_ = 0;
  std::atomic<int> rows_ = 0;

  batching::Mutex mutex_;
  batching::CondVar changed_;
  std::deque<Job> jobs_ ABSL_GUARDED_BY(mutex_);
  bool hanging_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last
};

}  // namespace piserve::testing
