// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "batching/task.h"

namespace piserve::server {

// Told where time goes inside a request, for metrics. Thread-safe; must not
// block.
class SchedulerObserver {
 public:
  virtual ~SchedulerObserver() = default;

  // `stage` is one of decode, queue, form, gpu, post, or a policy's own: h2d,
  // d2h.
  virtual void OnStage(absl::string_view /*stage*/, absl::Duration) {}

  // vision, prefill, denoise: once a wave.
  virtual void OnDeviceStage(absl::string_view /*stage*/, absl::Duration) {}

  // What was left of the budget when the answer was ready; negative if late.
  virtual void OnSlack(absl::Duration) {}

  // An answer was computed and not given: not finite, or late.
  virtual void OnWithheld(absl::string_view /*reason*/) {}

  // Measured over predicted time of a wave.
  virtual void OnPredictionRatio(double) {}
};

}  // namespace piserve::server
