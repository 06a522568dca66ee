// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "batching/task.h"
#include "model/observation.h"
#include "server/hosted_policy.h"
#include "server/inference.h"

namespace piserve::server {

// One accepted request on its way through the server. It is answered exactly
// once, by whoever owns it last.
struct InferenceTask {
  const HostedPolicy* hosted = nullptr;
  InferenceRequest request;
  Inference::Done done;
  batching::TaskTraits traits;
  ModelInput input;                   // once prepared
  std::vector<float> noise;           // [H, action_dim], once prepared
  std::optional<std::uint64_t> seed;  // unless the request gave noise
  absl::Duration deadline_served;
  absl::Duration decode_time;
  absl::Time enqueued;
  absl::Time launched;
  absl::Time formed;  // handed to the policy
};

using TaskPtr = std::unique_ptr<InferenceTask>;

}  // namespace piserve::server
