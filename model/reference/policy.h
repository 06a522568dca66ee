// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/checkpoint/weights.h"
#include "model/policy.h"
#include "model/reference/precision.h"

namespace piserve::reference {

// The reference network on the CPU behind the Policy interface: what serves
// where there is no GPU, and what the engine is compared with.
//
// One worker thread runs the waves in the order of their submission, and the
// rows of a wave one after another over their valid tokens only, so an answer
// is the same bits alone and in any company. A row whose tokens do not fit the
// variant completes with INVALID_ARGUMENT, one whose actions are not finite
// with INTERNAL and reason NON_FINITE_OUTPUT; neither touches the others. An
// exception from torch completes every row of its wave and of all later ones
// with INTERNAL and reason DEVICE_FAULT, and healthy() is false from then on.
//
// The destructor completes what was submitted, then returns. A slot may outlive
// the policy.
class ReferencePolicy : public Policy {
 public:
  struct Options {
    Precision precision = Precision::kBFloat16;
    // Threads of one operator. 0: the cores for a network of full width, one
    // for a narrow one. OpenMP's threads spin for each other, and operators of
    // microseconds crawl as soon as anything else wants one of the cores.
    int threads = 0;
    std::vector<int> batch_sizes = {1, 2, 4, 8, 16};  // ascending
    std::vector<int> step_counts = {10};  // the first one is the default
    int slots_in_flight = 2;
  };

  // Reads the weights (mapped tensors of the right dtype are used in place) and
  // times a few runs for PredictDuration: a second for a tiny variant, minutes
  // for the full one. INVALID_ARGUMENT for options that make no sense, what
  // Weights::Find returns, INTERNAL if torch throws.
  static absl::StatusOr<std::unique_ptr<ReferencePolicy>> Create(
      std::shared_ptr<const checkpoint::Weights> weights, Options options);

  ~ReferencePolicy() override;
  ReferencePolicy(const ReferencePolicy&) = delete;
  ReferencePolicy& operator=(const ReferencePolicy&) = delete;

  const Capabilities& capabilities() const override;
  // By the start's timings, corrected by what rows really took (live_cost.h).
  absl::Duration PredictDuration(const WaveShape& shape) const override;
  absl::StatusOr<std::unique_ptr<Slot>> AcquireSlot(int rows) override;
  void Submit(Wave wave, Completion completion) override;
  bool healthy() const override;

 private:
  class Impl;  // keeps torch out of this header
  explicit ReferencePolicy(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace piserve::reference
