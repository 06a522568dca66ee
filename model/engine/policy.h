// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/checkpoint/weights.h"
#include "model/engine/optimisations.h"
#include "model/policy.h"
#include "model/rope_table.h"

namespace piserve::engine {

// The captured network on a CUDA device behind the Policy interface.
//
// Submit enqueues graphs on the policy's stream and returns; one thread waits
// for waves and completes them in order. A row whose tokens or counts do not
// fit completes with INVALID_ARGUMENT, one whose actions are not finite with
// INTERNAL and reason NON_FINITE_OUTPUT; neither touches the others. An error
// of CUDA completes all other rows of its wave and of all later ones with
// INTERNAL and reason DEVICE_FAULT, and healthy() is false from then on. A
// device that hangs completes nothing: whoever serves the policy watches the
// clock.
//
// The destructor completes what was submitted, then returns. A slot may outlive
// the policy.
class EnginePolicy : public Policy {
 public:
  struct Options {
    int device = 0;
    RopeTable rope = RopeTable::kBf16;
    std::vector<int> batch_sizes;         // ascending
    std::vector<int> step_counts = {10};  // the first one is the default
    int slots_in_flight = 2;
    int micro_rows = 8;  // whose prefix is computed at once, at most
    // Where what a first start finds out is kept; empty: nowhere.
    std::string plan_path;
    // For measuring; a plan is only kept with all of them on.
    Optimisations optimisations = {};
    // Told now and then how far the start has come; may be null.
    std::function<void(const std::string&)> progress;
  };

  // Loads the weights, captures every graph and compares each with the same
  // kernels run without one: with every batch size up to 64 half a minute with
  // a new plan, seconds with a saved one. FAILED_PRECONDITION if there is no
  // device or something does not fit into its memory, INVALID_ARGUMENT for
  // options that make no sense, INTERNAL if CUDA fails or a graph answers
  // differently.
  static absl::StatusOr<std::unique_ptr<EnginePolicy>> Create(
      std::shared_ptr<const checkpoint::Weights> weights, Options options);

  ~EnginePolicy() override;
  EnginePolicy(const EnginePolicy&) = delete;
  EnginePolicy& operator=(const EnginePolicy&) = delete;

  const Capabilities& capabilities() const override;
  absl::Duration PredictDuration(const WaveShape& shape) const override;
  absl::StatusOr<std::unique_ptr<Slot>> AcquireSlot(int rows) override;
  void Submit(Wave wave, Completion completion) override;
  bool healthy() const override;
  std::optional<DeviceFacts> device_facts() const override;

 private:
  class Impl;  // keeps torch out of this header
  explicit EnginePolicy(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace piserve::engine
