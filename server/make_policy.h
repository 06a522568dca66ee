// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/load.h"
#include "model/policy.h"
#include "server/config.h"

namespace piserve::server {

struct MadePolicy {
  std::unique_ptr<Policy> policy;
  std::string device;  // "cpu", "cuda:0"
};

// Makes the network of an entry on its backend; takes the checkpoint's weights.
// INVALID_ARGUMENT if this build lacks the backend, else what the backend
// returns.
absl::StatusOr<MadePolicy> MakePolicy(const PolicyEntry& entry,
                                      checkpoint::Checkpoint& checkpoint);

}  // namespace piserve::server
