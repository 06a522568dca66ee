// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "clients/cpp/piserve/observation.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// Dimensions of the state that `info` asks for.
int StateSize(const v1::PolicyInfo& info);

// Tells early and without sending a megabyte what the server would refuse: a
// camera that the policy does not know, named twice or missing, and a state of
// the wrong length. INVALID_ARGUMENT with the field's path.
absl::Status CheckObservation(const ObservationIn& observation,
                              const v1::PolicyInfo& info);

}  // namespace piserve::client
