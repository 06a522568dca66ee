// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "piserve/v1/recording.pb.h"
#include "server/inference.h"

namespace piserve::server {

// What a client sent and got, whatever wire it came by. `request.storage` must
// still be held.
v1::Recording ToRecording(std::int64_t received_unix_us,
                          const InferenceRequest& request,
                          const absl::StatusOr<InferenceReply>& reply);

}  // namespace piserve::server
