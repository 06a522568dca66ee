// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cpp/piserve/observation.h"

namespace piserve::client {

// A request that a server recorded, and what it answered.
struct RecordedCall {
  std::string file;
  // Starts from the noise or seed that was used then. Without a deadline, an
  // age or a pin to the weights of that day.
  ObservationIn observation;
  // Row-major [horizon, action_dim]; absent where the request was refused.
  std::optional<std::vector<float>> actions;
  std::string model_digest;  // of the weights that answered
};

// Reads a .rec file, or all of a folder, oldest first. NOT_FOUND if there is
// none, INVALID_ARGUMENT with the file that is no recording.
absl::StatusOr<std::vector<RecordedCall>> ReadRecordings(
    const std::string& path);

// The largest difference between what was answered then and now; infinity where
// the shapes differ or a value is no number.
double LargestDifference(const std::vector<float>& recorded,
                         const ActionChunk& chunk);

}  // namespace piserve::client
