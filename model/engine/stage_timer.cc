// SPDX-License-Identifier: Apache-2.0
#include "model/engine/stage_timer.h"

#include "model/engine/cuda_status.h"

namespace piserve::engine {

StageTimer::~StageTimer() {
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
}

void StageTimer::Record(Stage stage) {
  if (stage == Stage::kBegin) {
    points_.clear();
    status_ = absl::OkStatus();
  }
  if (!status_.ok()) return;
  if (points_.size() == events_.size()) {
    cudaEvent_t event = nullptr;
    status_ = CudaStatus(cudaEventCreate(&event), "an event");
    if (!status_.ok()) return;
    events_.push_back(event);
  }
  points_.push_back({stage, events_[points_.size()]});
  status_ = CudaStatus(cudaEventRecord(points_.back().event, stream_),
                       "recording an event");
}

absl::Status StageTimer::Wait() const {
  if (!status_.ok()) return status_;
  if (points_.empty()) return absl::InternalError("no wave was enqueued");
  return CudaStatus(cudaEventSynchronize(points_.back().event), "the device");
}

// An event ends its stage.
StageTimer::Times StageTimer::Read() const {
  Times times;
  for (std::size_t i = 1; i < points_.size(); ++i) {
    float ms = 0;
    cudaEventElapsedTime(&ms, points_[i - 1].event, points_[i].event);
    const absl::Duration took = absl::Milliseconds(ms);
    switch (points_[i].stage) {
      case Stage::kBegin:
        break;
      case Stage::kLoad:
        times.load += took;
        break;
      case Stage::kVision:
        times.vision += took;
        break;
      case Stage::kPrefill:
        times.prefill += took;
        break;
      case Stage::kDenoise:
        times.denoise += took;
        break;
      case Stage::kEnd:
        times.store += took;
        break;
    }
  }
  return times;
}

}  // namespace piserve::engine
