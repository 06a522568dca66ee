// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/time/time.h"
#include "clients/cpp/piserve/observation.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// What policy_cli prints, as text for people or as one JSON value; each ends
// with a newline.

std::string InfoText(const v1::PolicyInfo& info);
std::string InfoJson(const std::vector<v1::PolicyInfo>& infos);

// `took`: from the call to its answer, as the client saw it.
std::string ChunkText(const ActionChunk& chunk, absl::Duration took);
std::string ChunkJson(const ActionChunk& chunk, absl::Duration took);

}  // namespace piserve::client
