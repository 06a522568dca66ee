// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "model/policy.h"
#include "model/variant.h"

namespace piserve::reference {

// Memory of one slot, on the heap: `rows` rows, each input an array of them.
struct SlotMemory {
  SlotMemory(const Variant& variant, int rows);

  std::vector<std::uint8_t> pixels;
  std::vector<std::uint8_t> camera_mask;
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> token_counts;
  std::vector<float> state;
  std::vector<float> noise;
  std::vector<float> actions;
};

class SlotPool;

// A lent slot. Gives its memory back to the pool, which it keeps alive.
class HeapSlot : public Slot {
 public:
  HeapSlot(std::shared_ptr<SlotPool> pool, std::unique_ptr<SlotMemory> memory,
           int rows);
  ~HeapSlot() override;
  HeapSlot(const HeapSlot&) = delete;
  HeapSlot& operator=(const HeapSlot&) = delete;

  int capacity() const override { return rows_; }
  SlotRow row(int index) override;

  // Where a row's actions are written: [H, action_dim].
  std::span<float> actions(int index);

 private:
  std::shared_ptr<SlotPool> pool_;
  std::unique_ptr<SlotMemory> memory_;
  int rows_;
};

// A fixed number of slots of `max_rows` rows, made when first needed and used
// again. Thread-safe.
class SlotPool : public std::enable_shared_from_this<SlotPool> {
 public:
  SlotPool(const Variant& variant, int slots, int max_rows);

  // RESOURCE_EXHAUSTED if all slots are out, INVALID_ARGUMENT if rows is not in
  // [1, max_rows].
  absl::StatusOr<std::unique_ptr<HeapSlot>> Acquire(int rows);

  // Is no slot out?
  bool idle() const;

  const Variant& variant() const { return variant_; }

 private:
  friend class HeapSlot;
  void GiveBack(std::unique_ptr<SlotMemory> memory);

  const Variant variant_;
  const int max_rows_;
  const int slots_;

  mutable std::mutex mutex_;  // guards what follows
  int slots_left_;
  std::vector<std::unique_ptr<SlotMemory>> idle_;
};

}  // namespace piserve::reference
