// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/engine/network.h"
#include "model/engine/plan.h"

namespace piserve::engine {

// What a plan for this network depends on besides its weights: the device, its
// driver and libraries, the engine and the sizes.
std::string PlanKey(const Network& network, absl::string_view weights_digest);

// Told now and then how far a start has come.
using Progress = std::function<void(const std::string& line)>;

// Makes a network ready for every wave: chooses algorithms, captures graphs,
// compares each with the same kernels run without a graph, and measures.
// Returns what a later start needs. INTERNAL if a graph answers differently.
absl::StatusOr<Plan> MakePlan(Network& network, std::string key,
                              const Progress& progress);

// The same from a plan of an earlier start: captures, and replays some sizes
// against its hashes. FAILED_PRECONDITION if the plan does not fit: it should
// be discarded, and the network with it.
absl::Status UsePlan(Network& network, const Plan& plan,
                     const Progress& progress);

}  // namespace piserve::engine
