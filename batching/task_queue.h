// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/time/time.h"
#include "batching/executor.h"
#include "batching/observer.h"
#include "batching/task.h"

namespace piserve::batching {

// A task of any type, owned.
struct HeldTask {
  virtual ~HeldTask() = default;
};

// An admitted task that is still being prepared, and when it should be ready.
struct ExpectedTask {
  const TaskTraits* traits = nullptr;
  absl::Time ready_at;
};

struct DroppedTask {
  std::unique_ptr<HeldTask> task;
  DropReason reason = DropReason::kExpired;
  Class priority = Class::kControl;
};

// Tasks that were admitted and have not ended: those being prepared and those
// waiting, with what they reserve. Not thread-safe; the batcher locks.
class TaskQueue {
 public:
  // ---- being prepared
  TaskId Reserve(const TaskTraits& traits, absl::Time now);
  void Resize(TaskId id, std::size_t bytes);
  void SetCost(TaskId id, int cameras, int prompt_tokens);
  void Release(TaskId id);

  // From prepared to waiting. May supersede older ones, or be superseded.
  void Enqueue(TaskId id, std::unique_ptr<HeldTask> task, absl::Time now);

  // ---- both
  void Cancel(TaskId id);
  void ClampDeadlines(absl::Time until);

  // ---- waiting
  // Takes out every waiting task that must not be launched at `now`.
  // `served` says whether a compatibility key still has an executor.
  std::vector<DroppedTask> TakeEnded(
      absl::Time now, const std::function<bool(std::uint64_t)>& served);
  std::vector<DroppedTask> TakeAll(DropReason reason);

  // Takes out the tasks at these positions of waiting().
  std::vector<std::unique_ptr<HeldTask>> TakeWave(
      const std::vector<int>& positions);

  // Valid until the next call that is not const.
  std::vector<const TaskTraits*> waiting() const;
  std::vector<ExpectedTask> expected() const;
  // Waiting and expected together, in no order.
  std::vector<const TaskTraits*> admitted() const;

  // When the first waiting task expires or goes stale.
  absl::Time next_end() const;

  bool empty() const { return rows() == 0; }
  bool has_waiting() const { return !waiting_.empty(); }
  int rows() const {
    return static_cast<int>(preparing_.size()) + waiting_rows();
  }
  int waiting_rows() const { return static_cast<int>(waiting_.size()); }
  int rows_of(std::uint64_t client) const;
  std::size_t bytes() const { return bytes_; }

 private:
  struct Preparing {
    TaskTraits traits;
    absl::Time since;
    std::optional<DropReason> doomed;  // drop once it is enqueued
  };
  struct Waiting {
    TaskId id = 0;
    TaskTraits traits;
    std::unique_ptr<HeldTask> task;
    std::optional<DropReason> doomed;  // drop at the next step
  };

  void Count(const TaskTraits& traits);
  void Uncount(const TaskTraits& traits);
  void SupersedeOlderThan(const TaskTraits& newer);
  bool SupersededByWaiting(const TaskTraits& older) const;

  TaskId next_id_ = 1;
  std::unordered_map<TaskId, Preparing> preparing_;
  std::vector<Waiting> waiting_;  // in order of arrival
  std::unordered_map<std::uint64_t, int> rows_of_;
  std::size_t bytes_ = 0;
  std::optional<absl::Duration> preparation_;  // moving average
};

}  // namespace piserve::batching
