// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "server/hosted_policy.h"
#include "server/inference.h"
#include "tests/support/fake_policy.h"

namespace piserve::testing {

// Sizes of a LIBERO policy on Pi0.5 whose network is never built.
Variant FakeVariant();

// A hosted policy of any network, on a GPU if it says so: a named configuration
// with statistics that change nothing and the small tokenizer of tests/golden
// below `source_folder`. Dies with a message if that cannot be read.
server::HostedPolicy HostOf(const std::string& name,
                            std::unique_ptr<Policy> policy,
                            const std::string& source_folder,
                            const std::string& policy_config = "pi05_libero");

// A request that such a host accepts, images of one grey and noise 0.
server::InferenceRequest LiberoRequest(absl::Time received,
                                       std::uint8_t grey = 128);

}  // namespace piserve::testing
