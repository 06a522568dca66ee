// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "model/engine/pinned_rows.h"
#include "model/policy.h"

namespace piserve::engine {

class Slots;

// A lent slot. Gives its memory back to where it came from, which it keeps
// alive.
class PinnedSlot : public Slot {
 public:
  PinnedSlot(std::shared_ptr<Slots> from, std::unique_ptr<PinnedRows> memory,
             int rows);
  ~PinnedSlot() override;
  PinnedSlot(const PinnedSlot&) = delete;
  PinnedSlot& operator=(const PinnedSlot&) = delete;

  int capacity() const override { return rows_; }
  SlotRow row(int index) override { return memory_->row(index); }
  HostWave wave() const { return memory_->wave(); }

 private:
  std::shared_ptr<Slots> from_;
  std::unique_ptr<PinnedRows> memory_;
  int rows_;
};

// A fixed number of slots of `max_rows` rows, pinned at once: pinning later
// would stall the device. Thread-safe.
class Slots : public std::enable_shared_from_this<Slots> {
 public:
  Slots(const Variant& variant, int count, int max_rows);

  // As Policy::AcquireSlot.
  absl::StatusOr<std::unique_ptr<PinnedSlot>> Acquire(int rows);

 private:
  friend class PinnedSlot;
  void GiveBack(std::unique_ptr<PinnedRows> memory);

  const int max_rows_;
  std::mutex mutex_;  // guards what follows
  std::vector<std::unique_ptr<PinnedRows>> idle_;
};

}  // namespace piserve::engine
