// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "model/engine/network.h"
#include "model/policy.h"

namespace piserve::engine {

// What each stage of such a wave takes alone, as graphs of its own: the median
// of replays in ms under "vision", "prefill" and "denoise". Only the wave's
// inputs are brought in front of each replay.
absl::StatusOr<std::map<std::string, double>> TimeStagesAlone(
    Network& network, const WaveShape& shape);

}  // namespace piserve::engine
