// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/engine/network.h"

namespace piserve::engine {

// Device time of one wave's stages, by events between them. Used for one wave
// at a time, again and again.
class StageTimer {
 public:
  struct Times {
    absl::Duration load, vision, prefill, denoise, store;
    absl::Duration total() const {
      return load + vision + prefill + denoise + store;
    }
  };

  explicit StageTimer(cudaStream_t stream) : stream_(stream) {}
  ~StageTimer();
  StageTimer(const StageTimer&) = delete;
  StageTimer& operator=(const StageTimer&) = delete;

  // Records an event on the stream; kBegin forgets what was before it.
  void Record(Stage stage);

  // Waits for the last event. INTERNAL with CUDA's message if the device
  // failed, or an event of the wave could not be recorded: what came before it
  // tells nothing of the wave's end.
  absl::Status Wait() const;

  // After Wait.
  Times Read() const;

 private:
  struct Point {
    Stage stage;
    cudaEvent_t event;
  };

  const cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;  // made when first needed
  std::vector<Point> points_;
  absl::Status status_;  // of recording them
};

}  // namespace piserve::engine
