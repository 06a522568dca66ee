// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "absl/time/time.h"
#include "batching/task.h"

namespace piserve::batching {

// Positions of `tasks` in the order in which they should be served: by class;
// in a class every client's first task before any client's second; among those
// by deadline, where a task counts as due `patience` after its arrival at the
// latest, so that earlier deadlines cannot pass it over for ever; then by
// arrival.
std::vector<int> ServingOrder(std::span<const TaskTraits* const> tasks,
                              absl::Duration patience);

}  // namespace piserve::batching
