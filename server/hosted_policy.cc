// SPDX-License-Identifier: Apache-2.0
#include "server/hosted_policy.h"

#include <span>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "batching/clock.h"
#include "model/checkpoint/digest.h"
#include "model/checkpoint/load.h"
#include "model/transform/tokenizer.h"
#include "server/make_policy.h"

namespace piserve::server {
namespace {

absl::Status InPolicy(const PolicyEntry& entry, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat("policy ", entry.name, ": ",
                                                  status.message()));
}

template <typename T>
void Override(const std::optional<T>& from, T& to) {
  if (from.has_value()) to = *from;
}

template <typename T>
void Override(const std::optional<T>& from, std::optional<T>& to) {
  if (from.has_value()) to = *from;
}

// The named row with what the configuration says otherwise. Horizon and prompt
// limit are left to LoadCheckpoint: files may say them too.
absl::StatusOr<PolicyConfig> ConfigOf(const PolicyEntry& entry) {
  const PolicyConfig* row = FindPolicyConfig(entry.policy_config);
  if (row == nullptr) {
    std::vector<std::string> names;
    for (const PolicyConfig& known : PolicyConfigs()) {
      names.push_back(known.name);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("policy_config: got \"", entry.policy_config,
                     "\", want one of ", absl::StrJoin(names, ", ")));
  }
  PolicyConfig config = *row;
  const PolicyOverrides& over = entry.overrides;
  Override(over.pi05, config.pi05);
  Override(over.norm, config.norm);
  Override(over.asset_id, config.asset_id);
  Override(over.robot, config.robot);
  Override(over.adapt_to_pi, config.adapt_to_pi);
  Override(over.absolute_actions, config.absolute_actions);
  Override(over.default_prompt, config.default_prompt);
  Override(over.discrete_state_input, config.discrete_state_input);
  Override(over.reset_pose, config.reset_pose);
  Override(over.control_rate_hz, config.control_rate_hz);
  return config;
}

checkpoint::CheckpointOptions OptionsOf(const PolicyEntry& entry,
                                        PolicyConfig config) {
  checkpoint::CheckpointOptions options;
  options.policy = std::move(config);
  options.action_horizon = entry.overrides.action_horizon;
  options.max_token_len = entry.overrides.max_token_len;
  if (!entry.variant_json.empty()) options.variant_path = entry.variant_json;
  if (!entry.norm_stats.empty()) options.norm_stats_path = entry.norm_stats;
  if (const auto* weights = std::get_if<CheckpointWeights>(&entry.weights)) {
    options.folder = weights->folder;
  } else {
    options.synthetic_seed = std::get<SyntheticWeights>(entry.weights).seed;
  }
  return options;
}

absl::Status Load(const PolicyEntry& entry, HostedPolicy& host) {
  absl::StatusOr<PolicyConfig> config = ConfigOf(entry);
  if (!config.ok()) return config.status();
  auto tokenizer = transform::Tokenizer::Load(entry.tokenizer);
  if (!tokenizer.ok()) return tokenizer.status();
  auto checkpoint =
      checkpoint::LoadCheckpoint(OptionsOf(entry, *std::move(config)));
  if (!checkpoint.ok()) return checkpoint.status();
  const transform::PipelineOptions options = {
      .long_prompt = entry.prompt_overflow == PromptOverflow::kTruncate
                         ? transform::LongPrompt::kTruncate
                         : transform::LongPrompt::kRefuse};
  auto pipeline = transform::Pipeline::Create(
      checkpoint->policy, checkpoint->variant,
      std::move(checkpoint->norm_stats), *std::move(tokenizer), options);
  if (!pipeline.ok()) return pipeline.status();
  const std::string weights_digest = checkpoint->weights->digest();
  auto made = MakePolicy(entry, *checkpoint);
  if (!made.ok()) return made.status();
  host.config = checkpoint->policy;
  host.pipeline = *std::move(pipeline);
  host.policy = std::move(made->policy);
  host.device = std::move(made->device);
  absl::StatusOr<std::string> digest =
      ModelDigest(weights_digest, *host.pipeline, host.policy->capabilities());
  if (!digest.ok()) return digest.status();
  host.model_digest = *std::move(digest);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HostedPolicy> LoadPolicy(const PolicyEntry& entry) {
  const absl::Time start = batching::Clock::Real().Now();
  HostedPolicy host;
  host.name = entry.name;
  if (const absl::Status status = Load(entry, host); !status.ok()) {
    return InPolicy(entry, status);
  }
  host.load_time = batching::Clock::Real().Now() - start;
  return host;
}

absl::StatusOr<std::string> ModelDigest(const std::string& weights_digest,
                                        const transform::Pipeline& pipeline,
                                        const Capabilities& capabilities) {
  const std::string text = absl::StrCat(
      weights_digest, "\n", pipeline.preprocessing_checksum(), "\n",
      pipeline.tokenizer_sha256(), "\n", capabilities.precision, "\n",
      DebugString(capabilities.variant));
  return checkpoint::Sha256(std::as_bytes(std::span(text.data(), text.size())));
}

}  // namespace piserve::server
