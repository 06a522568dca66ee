// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "piserve/v1/policy.pb.h"
#include "server/hosted_policy.h"

namespace piserve::server {

// What a client is told about a policy.
v1::PolicyInfo InfoOf(const HostedPolicy& host);

}  // namespace piserve::server
