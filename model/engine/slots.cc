// SPDX-License-Identifier: Apache-2.0
#include "model/engine/slots.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace piserve::engine {

PinnedSlot::PinnedSlot(std::shared_ptr<Slots> from,
                       std::unique_ptr<PinnedRows> memory, int rows)
    : from_(std::move(from)), memory_(std::move(memory)), rows_(rows) {}

PinnedSlot::~PinnedSlot() { from_->GiveBack(std::move(memory_)); }

Slots::Slots(const Variant& variant, int count, int max_rows)
    : max_rows_(max_rows) {
  for (int i = 0; i < count; ++i) {
    idle_.push_back(std::make_unique<PinnedRows>(variant, max_rows));
  }
}

absl::StatusOr<std::unique_ptr<PinnedSlot>> Slots::Acquire(int rows) {
  if (rows < 1 || rows > max_rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot: got ", rows, " rows, want 1 to ", max_rows_));
  }
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return absl::ResourceExhaustedError("slot: all are out");
  auto slot = std::make_unique<PinnedSlot>(shared_from_this(),
                                           std::move(idle_.back()), rows);
  idle_.pop_back();
  return slot;
}

void Slots::GiveBack(std::unique_ptr<PinnedRows> memory) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(memory));
}

}  // namespace piserve::engine
