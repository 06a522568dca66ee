// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>

#include "absl/status/status.h"
#include "model/checkpoint/weights.h"
#include "model/policy.h"

namespace piserve::engine {

// Starts the engine with every optimisation off, then with one more on each
// time, and prints what calls of `shape` take and what each was worth; beside
// it the same for a wave with two live cameras. A row of `rungs` for each.
//
// An error, after the table, if a rung failed or its actions are farther than
// bf16 explains from those of the last one, which has everything on.
absl::Status RunLadder(std::shared_ptr<const checkpoint::Weights> weights,
                       const WaveShape& shape, nlohmann::json& rungs);

}  // namespace piserve::engine
