// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "model/policy.h"
#include "model/policy_config.h"
#include "model/transform/pipeline.h"

namespace piserve::server {

// One policy that the server hosts, warm and ready to run. Immutable.
struct HostedPolicy {
  std::string name;  // on the wire
  PolicyConfig config;
  std::unique_ptr<Policy> policy;
  std::unique_ptr<const transform::Pipeline> pipeline;
  std::string model_digest;  // what a client may pin
};

}  // namespace piserve::server
