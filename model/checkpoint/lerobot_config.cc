// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/lerobot_config.h"

#include "absl/strings/str_cat.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/mapped_file.h"
#include "model/flow.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxSize = 1 << 20;

absl::StatusOr<std::optional<int>> ReadOptional(const json& config,
                                                std::string_view name,
                                                std::int64_t most) {
  if (!config.contains(std::string(name))) return std::nullopt;
  absl::StatusOr<std::int64_t> value = IntegerField(config, "", name, 1, most);
  if (!value.ok()) return value.status();
  return static_cast<int>(*value);
}

absl::StatusOr<bool> ReadIsPi05(const json& type) {
  if (type == "pi0") return false;
  if (type == "pi05") return true;
  const auto* name = type.get_ptr<const std::string*>();
  return absl::FailedPreconditionError(absl::StrCat(
      "type: got ", name != nullptr ? Quoted(*name) : DescribeJson(type),
      ", want \"pi0\" or \"pi05\""));
}

}  // namespace

absl::StatusOr<std::optional<LerobotConfig>> ParseLerobotConfig(
    std::string_view text) {
  absl::StatusOr<json> file = ParseJson(text);
  if (!file.ok()) return file.status();
  if (!file->is_object()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "top level: got ", DescribeJson(*file), ", want an object"));
  }
  if (!file->contains("type")) return std::nullopt;
  LerobotConfig config;
  absl::StatusOr<bool> pi05 = ReadIsPi05((*file)["type"]);
  if (!pi05.ok()) return pi05.status();
  config.pi05 = *pi05;
  struct Row {
    std::string_view name;
    std::optional<int> LerobotConfig::*value;
    std::int64_t most = kMaxSize;
  };
  for (const Row& row :
       {Row{"chunk_size", &LerobotConfig::action_horizon},
        Row{"max_action_dim", &LerobotConfig::action_dim},
        Row{"tokenizer_max_length", &LerobotConfig::max_token_len},
        Row{"num_inference_steps", &LerobotConfig::num_inference_steps,
            kMaxFlowSteps}}) {
    absl::StatusOr<std::optional<int>> value =
        ReadOptional(*file, row.name, row.most);
    if (!value.ok()) return value.status();
    config.*row.value = *value;
  }
  return std::make_optional(config);
}

absl::StatusOr<std::optional<LerobotConfig>> ReadLerobotConfig(
    const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  return ParseLerobotConfig(*text);
}

}  // namespace piserve::checkpoint
