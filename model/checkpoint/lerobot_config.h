// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace piserve::checkpoint {

// What lerobot's config.json says about a policy. openpi's config.json, which
// has no "type", says nothing that may be trusted: it names gemma_2b whatever
// the sizes are and does not tell pi05 from pi0.
struct LerobotConfig {
  bool pi05 = false;
  std::optional<int> action_horizon;  // chunk_size
  std::optional<int> action_dim;      // max_action_dim
  std::optional<int> max_token_len;   // tokenizer_max_length
  std::optional<int> num_inference_steps;
};

// nullopt if it is not lerobot's. FAILED_PRECONDITION if its type is neither
// pi0 nor pi05, a value is no number in [1, 2^20], or it is no JSON object.
absl::StatusOr<std::optional<LerobotConfig>> ParseLerobotConfig(
    std::string_view json);

// NOT_FOUND if there is no such file.
absl::StatusOr<std::optional<LerobotConfig>> ReadLerobotConfig(
    const std::string& path);

}  // namespace piserve::checkpoint
