// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "model/checkpoint/weights.h"
#include "model/norm_stats.h"
#include "model/policy_config.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// Where a policy's weights come from and what is known about them.
struct CheckpointOptions {
  // The folder that holds model.safetensors, written by openpi or lerobot, and
  // beside it, where they are, variant.json, config.json and
  // assets/<asset_id>/norm_stats.json. With `synthetic_seed` it holds no
  // weights and may be empty ("").
  std::string folder;

  // A row of PolicyConfigs(), with whatever the caller changed in it.
  PolicyConfig policy;

  // Set: outrank variant.json and config.json, which outrank `policy`.
  std::optional<int> action_horizon;
  std::optional<int> max_token_len;

  // Instead of <folder>/variant.json.
  std::optional<std::string> variant_path;
  // Instead of <folder>/assets/<asset_id>/norm_stats.json.
  std::optional<std::string> norm_stats_path;

  // Set: weights are generated (docs/synthetic.md) instead of read, for the
  // sizes of variant.json or, without one, the released sizes. Without norm
  // stats they get UnitNormStats.
  std::optional<std::uint64_t> synthetic_seed;
  DType synthetic_dtype = DType::kBFloat16;
};

struct Checkpoint {
  Variant variant;
  PolicyConfig policy;  // horizon and prompt limit are the variant's
  NormStats norm_stats;
  std::unique_ptr<Weights> weights;
  std::optional<int> num_inference_steps;  // lerobot's default, if it has one
};

// Everything about a policy except its tokenizer. What the weights tell is
// taken from them (pi0 or pi05, all shapes); what they cannot tell comes, in
// this order, from the options, variant.json, lerobot's config.json, the
// policy configuration. Heads, head_dim and sizes other than the released ones
// need variant.json.
//
// FAILED_PRECONDITION, one line, if anything is missing, broken, or
// contradicts the weights; NOT_FOUND if a named file does not exist. Messages
// name files as they were given.
absl::StatusOr<Checkpoint> LoadCheckpoint(const CheckpointOptions& options);

}  // namespace piserve::checkpoint
