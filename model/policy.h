// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/variant.h"

namespace piserve {

// One row of a slot. All spans point into memory of the slot (pinned on CUDA).
struct SlotRow {
  std::span<std::uint8_t> pixels;       // [3, image, image, 3] uint8 RGB
  std::span<std::uint8_t> camera_mask;  // [3], 0 or 1
  std::span<std::int32_t> tokens;       // [L]; the first *token_count are valid
  std::int32_t* token_count = nullptr;  // 1 at least
  std::span<float> state;               // [action_dim], normalised
  std::span<float> noise;               // [H, action_dim], standard normal
  std::span<const float> actions;  // [H, action_dim], normalised; valid once
                                   // the wave has completed
};

// Input and output memory of one wave, lent by a policy. Destroying it gives
// the memory back; never destroy one whose wave has not completed.
class Slot {
 public:
  virtual ~Slot() = default;
  virtual int capacity() const = 0;    // rows
  virtual SlotRow row(int index) = 0;  // 0 <= index < capacity()
};

// What decides how long a wave takes.
struct WaveShape {
  int rows = 1;
  int cameras = Variant::kCameras;  // the most that any row has live
  int prompt_tokens = 0;            // the most that any row has
  int steps = 10;
};

struct Wave {
  std::unique_ptr<Slot> slot;  // rows 0 .. shape.rows-1 are filled
  WaveShape shape;
};

struct StageDuration {
  std::string stage;  // "vision", "prefill", "denoise", "h2d", "d2h"
  absl::Duration duration;
};

struct WaveResult {
  std::unique_ptr<Slot> slot;            // given back, with actions
  std::vector<absl::Status> row_status;  // one a row
  std::vector<StageDuration> stages;
  int graph_rows = 0;  // rows that were really computed
};

struct Capabilities {
  Variant variant;
  std::string backend;           // "reference", "engine"
  std::string precision;         // "bfloat16", "float32"
  std::vector<int> batch_sizes;  // ascending; a wave of n rows runs in the
                                 // smallest that holds it
  std::vector<int> step_counts;  // the first one is the default
  int slots_in_flight = 2;
  bool supports_action_prefix = false;

  int max_rows() const { return batch_sizes.back(); }
};

// Bytes of a device once a policy is ready; it takes no more later on.
struct DeviceMemory {
  double weights = 0;  // the policy's, in every layout that it keeps
  double buffers = 0;  // the policy's activations, caches and workspaces
  double free = 0;     // of the device
  double total = 0;    // of the device
};

struct CapturedGraph {
  std::string stage;  // "vision", "prefill", "denoise"
  int rows = 1;       // that it computes at once
  // Denoising steps that it takes: "none", "first" or "later" (one), "all".
  std::string steps;
};

// What a policy tells of the GPU that it runs on.
struct DeviceFacts {
  // Joules that the device has used since some time in the past, whoever used
  // it; absent where that is not known. Asks the device's driver, so it may
  // never return. One thread at a time; it may outlive the policy.
  using Energy = std::function<std::optional<double>()>;

  DeviceMemory memory;
  std::vector<CapturedGraph> graphs;
  Energy energy;  // null: unknown for good
};

// A network ready to run: from model inputs to normalised actions.
//
// Thread-safe. Submit enqueues and returns: it never waits for the device.
// Waves of one policy complete in the order of their submission. The completion
// fires exactly once, on a thread of the policy's own, also when the policy is
// being destroyed; it must not block.
class Policy {
 public:
  using Completion = std::function<void(WaveResult)>;

  virtual ~Policy() = default;

  virtual const Capabilities& capabilities() const = 0;

  // Measured at start, and corrected since where the machine has other users:
  // time from launch to completion of such a wave when nothing else runs.
  virtual absl::Duration PredictDuration(const WaveShape& shape) const = 0;

  // RESOURCE_EXHAUSTED if all slots are out, INVALID_ARGUMENT if rows is not in
  // [1, max_rows].
  virtual absl::StatusOr<std::unique_ptr<Slot>> AcquireSlot(int rows) = 0;

  // A row whose actions are not finite completes with INTERNAL and its actions
  // are withheld; a device fault completes every row with INTERNAL.
  virtual void Submit(Wave wave, Completion completion) = 0;

  // False for good after a device fault.
  virtual bool healthy() const = 0;

  // As of the policy's start; absent where it runs on a CPU.
  virtual std::optional<DeviceFacts> device_facts() const {
    return std::nullopt;
  }
};

}  // namespace piserve
