// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "clients/cpp/piserve/observation.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// Consecutive dimensions with one meaning, as GetPolicyInfo names them.
struct BlockSpec {
  std::string name;
  std::string unit;  // rad, m, 1 (dimensionless), rad/s
  int size = 0;
};

// What a robot gives and takes. A policy for another robot may take an
// observation of the same shape (DROID's state is as long as LIBERO's), so
// names, units and order are compared too. What is empty is not.
struct RobotProfile {
  std::string name;                  // for messages
  std::vector<std::string> cameras;  // that it sends, as the policy calls them
  std::vector<BlockSpec> state;
  std::vector<BlockSpec> action;
};

RobotProfile LiberoProfile();
RobotProfile AlohaProfile();
RobotProfile DroidProfile();  // joint velocities

// The policy that a client is configured for. What is empty is not compared.
struct Expectation {
  RobotProfile robot = {};
  // PolicyInfo's: weights, statistics, tokenizer and configuration; and all
  // that shapes pixels, state and actions, the norm statistics among it.
  std::string model_digest = {};
  std::string preprocessing_checksum = {};
};

// FAILED_PRECONDITION unless `info` is what is expected; the reason is
// CAMERAS_MISMATCH, STATE_MISMATCH, ACTION_MISMATCH, MODEL_DIGEST_MISMATCH or
// PREPROCESSING_MISMATCH.
absl::Status CheckPolicy(const v1::PolicyInfo& info, const Expectation& want);

// Whether the chunk is of the model that `info` describes, and as long and wide
// as it says. FAILED_PRECONDITION, reason MODEL_CHANGED, if it is of another
// model; INTERNAL, reason BAD_REPLY, if its shape is wrong.
absl::Status CheckChunk(const ActionChunk& chunk, const v1::PolicyInfo& info);

}  // namespace piserve::client
