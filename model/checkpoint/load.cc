// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/load.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint/file_weights.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/lerobot_config.h"
#include "model/checkpoint/norm_stats.h"
#include "model/checkpoint/safetensors.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/checkpoint/tensor_index.h"
#include "model/checkpoint/variant_json.h"

namespace piserve::checkpoint {
namespace {

absl::Status WithPath(const absl::Status& status, const std::string& path) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(path, ": ", status.message()));
}

std::string InFolder(const std::string& folder, const std::string& name) {
  return absl::StrCat(folder, folder.ends_with('/') ? "" : "/", name);
}

const char* KindName(bool pi05) { return pi05 ? "pi05" : "pi0"; }

// What lies beside the weights.
struct Sidecars {
  std::string variant_path;
  std::optional<VariantFile> variant;
  std::string lerobot_path;
  std::optional<LerobotConfig> lerobot;
};

absl::StatusOr<std::optional<VariantFile>> ReadVariantBeside(
    const CheckpointOptions& options, const std::string& path) {
  absl::StatusOr<VariantFile> file = ReadVariantJson(path);
  if (file.ok()) return std::make_optional(*file);
  const bool optional = !options.variant_path.has_value();
  if (optional && absl::IsNotFound(file.status())) return std::nullopt;
  return WithPath(file.status(), path);
}

absl::StatusOr<std::optional<LerobotConfig>> ReadLerobotBeside(
    const std::string& path) {
  absl::StatusOr<std::optional<LerobotConfig>> config = ReadLerobotConfig(path);
  if (config.ok()) return *config;
  if (absl::IsNotFound(config.status())) return std::nullopt;
  return WithPath(config.status(), path);
}

absl::StatusOr<Sidecars> ReadSidecars(const CheckpointOptions& options) {
  Sidecars sidecars;
  if (options.folder.empty() && !options.variant_path.has_value()) {
    return sidecars;
  }
  sidecars.variant_path =
      options.variant_path.value_or(InFolder(options.folder, "variant.json"));
  auto variant = ReadVariantBeside(options, sidecars.variant_path);
  if (!variant.ok()) return variant.status();
  sidecars.variant = *variant;
  if (options.folder.empty()) return sidecars;
  sidecars.lerobot_path = InFolder(options.folder, "config.json");
  auto lerobot = ReadLerobotBeside(sidecars.lerobot_path);
  if (!lerobot.ok()) return lerobot.status();
  sidecars.lerobot = *lerobot;
  return sidecars;
}

absl::Status Contradiction(absl::string_view source, absl::string_view says,
                           absl::string_view weights) {
  return absl::FailedPreconditionError(absl::StrCat(
      source, ": got ", says, ", want ", weights, " as the weights say"));
}

// `network` is what the weights are.
absl::Status CheckAgreement(const Variant& network, const PolicyConfig& policy,
                            const Sidecars& sidecars) {
  if (policy.pi05 != network.pi05) {
    return Contradiction(
        absl::StrCat("policy configuration ", Quoted(policy.name)),
        KindName(policy.pi05), KindName(network.pi05));
  }
  if (!sidecars.lerobot.has_value()) return absl::OkStatus();
  const LerobotConfig& lerobot = *sidecars.lerobot;
  if (lerobot.pi05 != network.pi05) {
    return Contradiction(absl::StrCat(sidecars.lerobot_path, ": type"),
                         KindName(lerobot.pi05), KindName(network.pi05));
  }
  if (lerobot.action_dim.value_or(network.action_dim) != network.action_dim) {
    return Contradiction(
        absl::StrCat(sidecars.lerobot_path, ": max_action_dim"),
        absl::StrCat(*lerobot.action_dim), absl::StrCat(network.action_dim));
  }
  return absl::OkStatus();
}

// The network's sizes, completed by what weights cannot tell.
absl::StatusOr<Variant> Complete(Variant variant,
                                 const CheckpointOptions& options,
                                 const Sidecars& sidecars) {
  absl::Status status = CheckAgreement(variant, options.policy, sidecars);
  if (!status.ok()) return status;
  if (!sidecars.variant.has_value()) {
    variant.action_horizon = options.policy.action_horizon;
    variant.max_token_len = options.policy.max_token_len;
    if (sidecars.lerobot.has_value()) {
      const LerobotConfig& lerobot = *sidecars.lerobot;
      variant.action_horizon =
          lerobot.action_horizon.value_or(variant.action_horizon);
      variant.max_token_len =
          lerobot.max_token_len.value_or(variant.max_token_len);
    }
  }
  variant.action_horizon =
      options.action_horizon.value_or(variant.action_horizon);
  variant.max_token_len = options.max_token_len.value_or(variant.max_token_len);
  status = CheckVariant(variant);
  if (!status.ok()) return status;
  return variant;
}

absl::StatusOr<std::unique_ptr<Weights>> MakeSynthetic(
    const CheckpointOptions& options, const Sidecars& sidecars) {
  const Variant sizes = sidecars.variant.has_value() ? sidecars.variant->variant
                        : options.policy.pi05        ? Pi05Variant()
                                                     : Pi0Variant();
  absl::StatusOr<Variant> variant = Complete(sizes, options, sidecars);
  if (!variant.ok()) return variant.status();
  return MakeSyntheticWeights(*variant, *options.synthetic_seed,
                              options.synthetic_dtype);
}

// The sizes of variant.json if there is one, else what the tensors tell. Every
// shape is checked against them later; here only the kind, for the better
// message.
absl::StatusOr<Variant> SizesOf(const Safetensors& file,
                                const Sidecars& sidecars) {
  absl::StatusOr<TensorIndex> index = IndexTensors(file);
  if (!index.ok()) return index.status();
  if (!sidecars.variant.has_value()) return DetectVariant(*index);
  absl::StatusOr<bool> pi05 = IsPi05(*index);
  if (!pi05.ok()) return pi05.status();
  const Variant& variant = sidecars.variant->variant;
  if (variant.pi05 != *pi05) {
    return Contradiction(sidecars.variant_path, KindName(variant.pi05),
                         KindName(*pi05));
  }
  return variant;
}

// What stands in the way of reading `path`, the weights of `folder`. openpi
// releases checkpoints as JAX writes them: params/ in place of the file.
absl::Status NoWeights(const absl::Status& status, const std::string& folder,
                       const std::string& path) {
  std::error_code error;
  if (!absl::IsNotFound(status) ||
      !std::filesystem::is_directory(InFolder(folder, "params"), error)) {
    return WithPath(status, path);
  }
  return WithPath(absl::NotFoundError(absl::StrCat(
                      status.message(),
                      ", but params/: this is a JAX checkpoint, want "
                      "one that openpi's examples/"
                      "convert_jax_model_to_pytorch.py made of it")),
                  path);
}

absl::StatusOr<std::unique_ptr<Weights>> ReadWeights(
    const CheckpointOptions& options, const Sidecars& sidecars) {
  const std::string path = InFolder(options.folder, "model.safetensors");
  absl::StatusOr<Safetensors> file = Safetensors::Open(path);
  if (!file.ok()) return NoWeights(file.status(), options.folder, path);
  absl::StatusOr<Variant> sizes = SizesOf(*file, sidecars);
  if (!sizes.ok()) return WithPath(sizes.status(), path);
  absl::StatusOr<Variant> variant = Complete(*sizes, options, sidecars);
  if (!variant.ok()) return variant.status();
  auto weights = MakeFileWeights(*file, *variant);
  if (weights.ok()) return weights;
  return WithPath(
      sidecars.variant.has_value()
          ? weights.status()
          : absl::FailedPreconditionError(absl::StrCat(
                weights.status().message(), " (the released sizes of ",
                KindName(variant->pi05), "; others need a variant.json)")),
      path);
}

absl::StatusOr<NormStats> LoadNormStats(const CheckpointOptions& options,
                                        int action_dim) {
  const bool generated = options.synthetic_seed.has_value() &&
                         !options.norm_stats_path.has_value();
  if (generated && options.folder.empty()) return UnitNormStats(action_dim);
  const std::string path = options.norm_stats_path.value_or(InFolder(
      options.folder,
      absl::StrCat("assets/", options.policy.asset_id, "/norm_stats.json")));
  absl::StatusOr<NormStats> stats = ReadNormStats(path);
  if (generated && absl::IsNotFound(stats.status())) {
    return UnitNormStats(action_dim);
  }
  if (!stats.ok()) return WithPath(stats.status(), path);
  absl::Status status = CheckNormStats(*stats, options.policy.norm, action_dim);
  if (!status.ok()) return WithPath(status, path);
  return stats;
}

}  // namespace

absl::StatusOr<Checkpoint> LoadCheckpoint(const CheckpointOptions& options) {
  if (options.folder.empty() && !options.synthetic_seed.has_value()) {
    return absl::FailedPreconditionError(
        "checkpoint: got neither a folder nor a synthetic seed");
  }
  absl::StatusOr<Sidecars> sidecars = ReadSidecars(options);
  if (!sidecars.ok()) return sidecars.status();
  absl::StatusOr<std::unique_ptr<Weights>> weights =
      options.synthetic_seed.has_value() ? MakeSynthetic(options, *sidecars)
                                         : ReadWeights(options, *sidecars);
  if (!weights.ok()) return weights.status();
  Checkpoint checkpoint;
  checkpoint.variant = (*weights)->variant();
  checkpoint.weights = *std::move(weights);
  checkpoint.policy = options.policy;
  checkpoint.policy.action_horizon = checkpoint.variant.action_horizon;
  checkpoint.policy.max_token_len = checkpoint.variant.max_token_len;
  absl::StatusOr<NormStats> stats =
      LoadNormStats(options, checkpoint.variant.action_dim);
  if (!stats.ok()) return stats.status();
  checkpoint.norm_stats = *std::move(stats);
  if (sidecars->lerobot.has_value()) {
    checkpoint.num_inference_steps = sidecars->lerobot->num_inference_steps;
  }
  return checkpoint;
}

}  // namespace piserve::checkpoint
