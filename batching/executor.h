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

  bool operator==(const WaveCost&) const = default;
};

// All that batching asks of an executor when it decides. Every call comes under
// the batcher's lock, from any thread: it must be quick and must not call the
// batcher back.
class ExecutorTraits {
 public:
  virtual ~ExecutorTraits() = default;

  // Ascending wave sizes with a captured graph, at least one; a wave runs in
  // the smallest that holds it.
  virtual const std::vector<int>& sizes() const = 0;

  // Waves that may be launched and not yet done, >= 1: one runs, the others
  // wait on the device with their inputs in place.
  virtual int slots() const = 0;

  // The same for executors that take turns on one device.
  virtual const void* device() const { return this; }

  // May this executor run tasks of this compatibility key?
  virtual bool Serves(std::uint64_t compatibility) const = 0;

  // Measured time from launch to answer on an idle device. The batcher asks
  // only for rows that are one of `sizes`, but of the mean of all that waits
  // for its device: cameras and prompt may be more than any task has that this
  // executor serves.
  virtual absl::Duration Predict(const WaveCost& cost) const = 0;

  // False for good after a fault: it gets no more waves.
  virtual bool healthy() const = 0;
};

// Runs waves, one after another. One executor is one device and one policy set;
// the batcher may own several, of one device too.
//
// `Task` is moved in and stays the executor's: it answers each one, also when
// the device fails under it. `done` is called exactly once for each Launch,
// from any thread, inside Launch too, when the wave's rows have been answered;
// it takes the batcher's lock, so the caller holds no lock that the calls of
// ExecutorTraits take.
template <typename Task>
class Executor : public ExecutorTraits {
 public:
  // Never blocks on the device. Called by the batch thread alone, under no lock
  // of the batcher.
  virtual void Launch(std::vector<Task> wave, std::function<void()> done) = 0;
};

}  // namespace piserve::batching
