// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "model/policy.h"

namespace piserve::server {

// Follows what a device uses, on a thread of its own that asks now and then:
// where the device's driver hangs, nobody else waits for it.
class EnergySampler {
 public:
  struct Options {
    DeviceFacts::Energy energy;
    // Told the joules since it was told last, at first 0, whenever `energy`
    // knows. On the sampler's thread, and never after the destructor; must not
    // block.
    std::function<void(double joules)> used;
    absl::Duration interval = absl::Seconds(5);
    // How long the destructor waits for `energy` to return.
    absl::Duration patience = absl::Milliseconds(500);
  };

  explicit EnergySampler(Options options);
  // Leaves a thread behind whose `energy` does not return: it keeps no process
  // from ending.
  ~EnergySampler();
  EnergySampler(const EnergySampler&) = delete;
  EnergySampler& operator=(const EnergySampler&) = delete;

 private:
  class State;

  const std::shared_ptr<State> state_;  // the thread's too
  const absl::Duration patience_;
};

}  // namespace piserve::server
