// SPDX-License-Identifier: Apache-2.0
#include "model/reference/slot_pool.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace piserve::reference {
namespace {

std::size_t PixelBytes(const Variant& variant) {
  const std::size_t side = variant.vision.image;
  return Variant::kCameras * side * side * 3;
}

std::size_t ChunkSize(const Variant& variant) {
  return std::size_t{1} * variant.action_horizon * variant.action_dim;
}

// Row `index` of an array of rows of `size` elements.
template <typename T>
std::span<T> RowOf(std::vector<T>& rows, int index, std::size_t size) {
  return std::span<T>(rows).subspan(index * size, size);
}

}  // namespace

SlotMemory::SlotMemory(const Variant& variant, int rows)
    : pixels(rows * PixelBytes(variant)),
      camera_mask(rows * Variant::kCameras),
      tokens(rows * variant.max_token_len),
      token_counts(rows),
      state(rows * variant.action_dim),
      noise(rows * ChunkSize(variant)),
      actions(rows * ChunkSize(variant)) {}

HeapSlot::HeapSlot(std::shared_ptr<SlotPool> pool,
                   std::unique_ptr<SlotMemory> memory, int rows)
    : pool_(std::move(pool)), memory_(std::move(memory)), rows_(rows) {}

HeapSlot::~HeapSlot() { pool_->GiveBack(std::move(memory_)); }

SlotRow HeapSlot::row(int index) {
  const Variant& variant = pool_->variant();
  SlotMemory& m = *memory_;
  return {.pixels = RowOf(m.pixels, index, PixelBytes(variant)),
          .camera_mask = RowOf(m.camera_mask, index, Variant::kCameras),
          .tokens = RowOf(m.tokens, index, variant.max_token_len),
          .token_count = &m.token_counts[index],
          .state = RowOf(m.state, index, variant.action_dim),
          .noise = RowOf(m.noise, index, ChunkSize(variant)),
          .actions = actions(index)};
}

std::span<float> HeapSlot::actions(int index) {
  return RowOf(memory_->actions, index, ChunkSize(pool_->variant()));
}

SlotPool::SlotPool(const Variant& variant, int slots, int max_rows)
    : variant_(variant),
      max_rows_(max_rows),
      slots_(slots),
      slots_left_(slots) {}

absl::StatusOr<std::unique_ptr<HeapSlot>> SlotPool::Acquire(int rows) {
  if (rows < 1 || rows > max_rows_) {
    return absl::InvalidArgumentError(
        absl::StrCat("slot: got ", rows, " rows, want 1 to ", max_rows_));
  }
  std::unique_ptr<SlotMemory> memory;
  {
    const std::lock_guard lock(mutex_);
    if (slots_left_ == 0) {
      return absl::ResourceExhaustedError("slot: all are out");
    }
    --slots_left_;
    if (!idle_.empty()) {
      memory = std::move(idle_.back());
      idle_.pop_back();
    }
  }
  if (memory == nullptr) {
    memory = std::make_unique<SlotMemory>(variant_, max_rows_);
  }
  return std::make_unique<HeapSlot>(shared_from_this(), std::move(memory),
                                    rows);
}

bool SlotPool::idle() const {
  const std::lock_guard lock(mutex_);
  return slots_left_ == slots_;
}

void SlotPool::GiveBack(std::unique_ptr<SlotMemory> memory) {
  const std::lock_guard lock(mutex_);
  ++slots_left_;
  idle_.push_back(std::move(memory));
}

}  // namespace piserve::reference
