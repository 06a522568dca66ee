// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/norm_stats.h"
#include "model/observation.h"
#include "model/policy_config.h"
#include "model/transform/robots.h"
#include "model/transform/tokenizer.h"
#include "model/variant.h"

namespace piserve::transform {

// What happens to a prompt of more tokens than the model takes.
enum class LongPrompt {
  kRefuse,    // INVALID_ARGUMENT, reason PROMPT_TOO_LONG
  kTruncate,  // cut at the end without a word, as openpi does
};

struct PipelineOptions {
  LongPrompt long_prompt = LongPrompt::kRefuse;
};

// What an observation will cost, known before anything is decoded.
struct InputCost {
  int cameras = 0;        // live model slots
  int prompt_tokens = 0;  // upper bound
  std::size_t bytes = 0;  // memory of the ModelInput, upper bound
};

// From what a robot sent to what the model takes, and from the model's actions
// back to robot units: decode, resize, robot transform, normalise, tokenise,
// pad; unnormalise, make absolute, robot transform, slice.
//
// Immutable, hence thread-safe. Every error about an observation is
// INVALID_ARGUMENT with a reason and the field's path (model/error.h).
// Source: openpi policies/policy_config.py create_trained_policy and
// transforms.py; docs/pi0.md 4.1.
class Pipeline {
 public:
  // Sizes (action_dim, action_horizon, max_token_len, image side) come from
  // `variant`; `config` says the rest, including the default prompt.
  // FAILED_PRECONDITION if they or the statistics contradict each other.
  static absl::StatusOr<std::unique_ptr<Pipeline>> Create(
      const PolicyConfig& config, const Variant& variant, NormStats stats,
      std::unique_ptr<const Tokenizer> tokenizer, PipelineOptions options = {});

  // Judges everything that can be judged without decoding: camera names, sizes,
  // image headers, state, prompt bytes. Microseconds.
  absl::Status Validate(const Observation& observation) const;

  // What a valid observation will cost. Microseconds.
  InputCost EstimateCost(const Observation& observation) const;

  // Milliseconds for encoded or large images. Validates first.
  absl::StatusOr<ModelInput> Prepare(const Observation& observation) const;

  //   model_actions  [H, action_dim of the variant], normalised
  //   returns        [H, action_dim()], robot units, float64 as openpi's
  // `input` is the row's own, as Prepare returned it (only robot_state is
  // read). INVALID_ARGUMENT if a size differs.
  absl::StatusOr<std::vector<double>> Finish(
      std::span<const float> model_actions, const ModelInput& input) const;

  // Cameras, state and actions as a client sees them, in the wire's order.
  std::span<const CameraSpec> cameras() const { return robot_.cameras; }
  std::span<const Block> state_blocks() const { return robot_.state; }
  std::span<const Block> action_blocks() const { return robot_.actions; }
  int state_dim() const { return robot_.state_dim(); }
  int action_dim() const { return robot_.action_dim(); }

  int action_horizon() const { return variant_.action_horizon; }
  int max_prompt_tokens() const { return variant_.max_token_len; }
  const std::optional<std::string>& default_prompt() const {
    return config_.default_prompt;
  }

  // sha256, hex, over everything that shapes preprocessing: equal checksums
  // mean equal treatment of equal observations.
  const std::string& preprocessing_checksum() const { return checksum_; }
  const std::string& tokenizer_sha256() const { return tokenizer_->sha256(); }

 private:
  Pipeline(const PolicyConfig& config, const Variant& variant, NormStats stats,
           std::unique_ptr<const Tokenizer> tokenizer, PipelineOptions options);

  absl::Status ValidateState(const Observation& observation) const;
  absl::Status ValidatePrompt(const Observation& observation) const;
  absl::Status ValidateImages(const Observation& observation) const;
  absl::Status ValidateImage(const ImageView& image,
                             absl::string_view field) const;
  absl::Status PrepareImages(const Observation& observation,
                             ModelInput* input) const;
  absl::StatusOr<std::vector<std::int32_t>> Tokenize(
      const Observation& observation,
      std::span<const double> normalised_state) const;
  std::string Checksum() const;

  const PolicyConfig config_;
  const Variant variant_;
  const NormStats stats_;
  const std::unique_ptr<const Tokenizer> tokenizer_;
  const PipelineOptions options_;
  const RobotSpec robot_;
  const std::vector<bool> absolute_mask_;
  const std::string checksum_;
};

}  // namespace piserve::transform
