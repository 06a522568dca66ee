// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/policy.h"
#include "server/inference.h"

namespace piserve::server {

// The end of one request.
struct Answer {
  const InferenceRequest& request;  // its observation may be gone
  const absl::Status& status;
  const InferenceReply* reply;  // null unless the status is OK
  absl::Duration total;         // since receipt
  absl::Duration slack;         // to the deadline; negative: too late
};

// The end of one wave on its device.
struct WaveReport {
  std::string_view device;
  absl::Duration predicted;  // with the turns of others' waves beside it
  absl::Duration measured;
  // For how long the device has run waves, this or another policy's, that no
  // report before has told.
  absl::Duration busy;
  std::span<const StageDuration> stages;  // as the policy timed them
};

enum class FaultKind {
  kPolicy,  // the policy says that its device failed
  kHang,    // a wave is far over its time
};

// Told what happens to requests and waves, for metrics and logs. Called from
// any thread, under no lock; must not block.
class DispatchObserver {
 public:
  virtual ~DispatchObserver() = default;
  virtual void OnAnswer(const Answer&) {}
  virtual void OnWave(const WaveReport&) {}
  virtual void OnFault(std::string_view /*device*/, FaultKind) {}
};

}  // namespace piserve::server
