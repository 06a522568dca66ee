// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <utility>

#include "batching/task.h"

namespace piserve::batching {

class BatcherCore;

// The right to enqueue one task: its row, bytes and predicted time are
// reserved. Destroyed unused, it gives them back. Must not outlive the batcher.
// One thread at a time.
class Ticket {
 public:
  Ticket(Ticket&& other) noexcept { *this = std::move(other); }
  Ticket& operator=(Ticket&& other) noexcept;
  ~Ticket() { Release(); }

  TaskId id() const { return id_; }

  // The bytes the task really holds, once it is prepared. Growth is counted,
  // never refused: the task has been accepted.
  void Resize(std::size_t bytes);

  // What the task really costs, once it is prepared.
  void SetCost(int cameras, int prompt_tokens);

 private:
  friend class BatcherCore;
  Ticket(BatcherCore* core, TaskId id) : core_(core), id_(id) {}
  void Release();

  BatcherCore* core_ = nullptr;  // null when moved from or used
  TaskId id_ = 0;
};

}  // namespace piserve::batching
