// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "model/policy.h"
#include "model/policy_config.h"
#include "model/transform/pipeline.h"
#include "server/config.h"

namespace piserve::server {

// A policy under its name on the wire: the network, what is around it, and what
// is to be told about both.
struct HostedPolicy {
  std::string name;
  PolicyConfig config;  // the named row and what overrode it
  std::unique_ptr<Policy> policy;
  std::unique_ptr<transform::Pipeline> pipeline;
  std::string device;        // "cpu", "cuda:0"
  std::string model_digest;  // sha256, hex
  absl::Duration load_time;

  bool on_gpu() const { return device != "cpu"; }
};

// Loads what the entry names. One line that says what is missing or
// contradictory: INVALID_ARGUMENT for the entry itself, else as
// checkpoint::LoadCheckpoint, transform::Pipeline::Create and the policy's own.
absl::StatusOr<HostedPolicy> LoadPolicy(const PolicyEntry& entry);

// sha256 over what decides an answer: the weights, everything that shapes
// preprocessing (statistics and tokenizer included), precision and sizes.
// INTERNAL if libcrypto fails.
absl::StatusOr<std::string> ModelDigest(const std::string& weights_digest,
                                        const transform::Pipeline& pipeline,
                                        const Capabilities& capabilities);

}  // namespace piserve::server
