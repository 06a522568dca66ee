// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/time/time.h"

namespace piserve::batching {

// What a wave costs: the maxima over its rows.
struct WaveCost {
  int rows = 1;
  int cameras = 0;
  int prompt_tokens = 0;
  int steps = 10;
};

// Runs waves, one after another. One executor is one device and one policy set;
// the batcher may own several.
//
// `Task` is moved in and stays the executor's: it answers each one. `done` is
// called exactly once for each Launch, from any thread, when the wave's rows
// have been answered.
template <typename Task>
class Executor {
 public:
  virtual ~Executor() = default;

  // Ascending wave sizes with a captured graph; a wave runs in the smallest
  // that holds it.
  virtual const std::vector<int>& sizes() const = 0;

  // Waves that may be launched and not yet done: one runs, the others wait on
  // the device with their inputs in place.
  virtual int slots() const = 0;

  // May this executor run tasks of this compatibility key?
  virtual bool Serves(std::uint64_t compatibility) const = 0;

  // Measured time from launch to answer on an idle device.
  virtual absl::Duration Predict(const WaveCost& cost) const = 0;

  // False for good after a fault: it gets no more waves.
  virtual bool healthy() const = 0;

  // Never blocks on the device.
  virtual void Launch(std::vector<Task> wave, std::function<void()> done) = 0;
};

}  // namespace piserve::batching
