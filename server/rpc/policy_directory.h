// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::server::rpc {

// What the services ask of the server beside Inference. Thread-safe; never
// blocks.
class PolicyDirectory {
 public:
  virtual ~PolicyDirectory() = default;

  // OK while requests are taken; else UNAVAILABLE with a reason (WARMING_UP,
  // DRAINING, DEVICE_FAULT) and a retry-after. Asked before a request is looked
  // at; Inference still has the last word.
  virtual absl::Status Availability() const = 0;

  // The policy that an empty name means; empty where several are hosted.
  virtual std::string DefaultPolicy() const = 0;

  // `policy`, or all when it is empty. NOT_FOUND if unknown. Answers while
  // warming up.
  virtual absl::StatusOr<v1::GetPolicyInfoResponse> Describe(
      absl::string_view policy) const = 0;
};

}  // namespace piserve::server::rpc
