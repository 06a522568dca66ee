// SPDX-License-Identifier: Apache-2.0
#include "batching/task_queue.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace piserve::batching {
namespace {

// Weight of the newest task in the average time of preparation.
constexpr double kNewest = 0.2;

// Does `newer` ask for `older` to be replaced?
bool Supersedes(const TaskTraits& newer, const TaskTraits& older) {
  return newer.supersede_older && newer.identity && older.identity &&
         newer.client == older.client &&
         newer.identity->robot == older.identity->robot &&
         newer.identity->sequence > older.identity->sequence;
}

}  // namespace

TaskId TaskQueue::Reserve(const TaskTraits& traits, absl::Time now) {
  const TaskId id = next_id_++;
  preparing_.emplace(id, Preparing{traits, now, std::nullopt});
  Count(traits);
  return id;
}

void TaskQueue::Resize(TaskId id, std::size_t bytes) {
  TaskTraits& traits = preparing_.at(id).traits;
  Uncount(traits);
  traits.bytes = bytes;
  Count(traits);
}

void TaskQueue::SetCost(TaskId id, int cameras, int prompt_tokens) {
  TaskTraits& traits = preparing_.at(id).traits;
  traits.cameras = cameras;
  traits.prompt_tokens = prompt_tokens;
}

void TaskQueue::Release(TaskId id) {
  const auto it = preparing_.find(id);
  assert(it != preparing_.end());
  Uncount(it->second.traits);
  preparing_.erase(it);
}

void TaskQueue::Enqueue(TaskId id, std::unique_ptr<HeldTask> task,
                        absl::Time now) {
  const auto it = preparing_.find(id);
  assert(it != preparing_.end());
  Preparing prepared = std::move(it->second);
  preparing_.erase(it);
  const absl::Duration took = now - prepared.since;
  preparation_ =
      preparation_ ? *preparation_ * (1 - kNewest) + took * kNewest : took;
  if (!prepared.doomed) {
    SupersedeOlderThan(prepared.traits);
    if (SupersededByWaiting(prepared.traits)) {
      prepared.doomed = DropReason::kSuperseded;
    }
  }
  waiting_.push_back({id, prepared.traits, std::move(task), prepared.doomed});
}

void TaskQueue::SupersedeOlderThan(const TaskTraits& newer) {
  if (!newer.supersede_older) return;
  for (Waiting& older : waiting_) {
    if (!older.doomed && Supersedes(newer, older.traits)) {
      older.doomed = DropReason::kSuperseded;
    }
  }
  for (auto& [id, older] : preparing_) {
    if (!older.doomed && Supersedes(newer, older.traits)) {
      older.doomed = DropReason::kSuperseded;
    }
  }
}

bool TaskQueue::SupersededByWaiting(const TaskTraits& older) const {
  return std::any_of(waiting_.begin(), waiting_.end(), [&](const Waiting& w) {
    return !w.doomed && Supersedes(w.traits, older);
  });
}

void TaskQueue::Cancel(TaskId id) {
  const auto preparing = preparing_.find(id);
  if (preparing != preparing_.end()) {
    if (!preparing->second.doomed) {
      preparing->second.doomed = DropReason::kCancelled;
    }
    return;
  }
  const auto waiting =
      std::find_if(waiting_.begin(), waiting_.end(),
                   [&](const Waiting& task) { return task.id == id; });
  if (waiting != waiting_.end() && !waiting->doomed) {
    waiting->doomed = DropReason::kCancelled;
  }
}

void TaskQueue::ClampDeadlines(absl::Time until) {
  const auto clamp = [&](TaskTraits& traits) {
    traits.deadline = std::min(traits.deadline, until);
  };
  for (auto& [id, task] : preparing_) clamp(task.traits);
  for (Waiting& task : waiting_) clamp(task.traits);
}

std::vector<DroppedTask> TaskQueue::TakeEnded(
    absl::Time now, const std::function<bool(std::uint64_t)>& served) {
  std::vector<DroppedTask> ended;
  const auto why = [&](const Waiting& task) -> std::optional<DropReason> {
    if (task.doomed) return task.doomed;
    if (task.traits.deadline <= now) return DropReason::kExpired;
    if (task.traits.stale_at <= now) return DropReason::kStale;
    if (!served(task.traits.compatibility)) return DropReason::kNoExecutor;
    return std::nullopt;
  };
  auto kept = waiting_.begin();
  for (Waiting& task : waiting_) {
    if (const std::optional<DropReason> reason = why(task)) {
      Uncount(task.traits);
      ended.push_back({std::move(task.task), *reason, task.traits.priority});
    } else {
      if (&task != &*kept) *kept = std::move(task);
      ++kept;
    }
  }
  waiting_.erase(kept, waiting_.end());
  return ended;
}

std::vector<DroppedTask> TaskQueue::TakeAll(DropReason reason) {
  std::vector<DroppedTask> all;
  for (Waiting& task : waiting_) {
    Uncount(task.traits);
    all.push_back({std::move(task.task), task.doomed.value_or(reason),
                   task.traits.priority});
  }
  waiting_.clear();
  return all;
}

std::vector<std::unique_ptr<HeldTask>> TaskQueue::TakeWave(
    const std::vector<int>& positions) {
  std::vector<std::unique_ptr<HeldTask>> wave;
  wave.reserve(positions.size());
  for (int position : positions) {
    Uncount(waiting_[position].traits);
    wave.push_back(std::move(waiting_[position].task));
  }
  std::erase_if(waiting_, [](const Waiting& task) { return !task.task; });
  return wave;
}

std::vector<const TaskTraits*> TaskQueue::waiting() const {
  std::vector<const TaskTraits*> traits;
  traits.reserve(waiting_.size());
  for (const Waiting& task : waiting_) traits.push_back(&task.traits);
  return traits;
}

std::vector<ExpectedTask> TaskQueue::expected() const {
  std::vector<ExpectedTask> expected;
  if (!preparation_) return expected;
  for (const auto& [id, task] : preparing_) {
    if (task.doomed) continue;
    expected.push_back({&task.traits, task.since + *preparation_});
  }
  return expected;
}

std::vector<const TaskTraits*> TaskQueue::admitted() const {
  std::vector<const TaskTraits*> traits = waiting();
  for (const auto& [id, task] : preparing_) traits.push_back(&task.traits);
  return traits;
}

absl::Time TaskQueue::next_end() const {
  absl::Time next = absl::InfiniteFuture();
  for (const Waiting& task : waiting_) {
    next = std::min({next, task.traits.deadline, task.traits.stale_at});
  }
  return next;
}

int TaskQueue::rows_of(std::uint64_t client) const {
  const auto it = rows_of_.find(client);
  return it == rows_of_.end() ? 0 : it->second;
}

void TaskQueue::Count(const TaskTraits& traits) {
  ++rows_of_[traits.client];
  bytes_ += traits.bytes;
}

void TaskQueue::Uncount(const TaskTraits& traits) {
  const auto it = rows_of_.find(traits.client);
  if (--it->second == 0) rows_of_.erase(it);  // stays as small as the queue
  bytes_ -= traits.bytes;
}

}  // namespace piserve::batching
