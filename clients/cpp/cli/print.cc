// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/print.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/cli/table.h"
#include "google/protobuf/util/json_util.h"

namespace piserve::client {
namespace {

using Json = nlohmann::ordered_json;

std::string Milliseconds(absl::Duration duration) {
  return absl::StrFormat("%.3f", absl::ToDoubleMilliseconds(duration));
}

std::string UseName(v1::CameraUse use) {
  switch (use) {
    case v1::CAMERA_USE_REQUIRED:
      return "required";
    case v1::CAMERA_USE_OPTIONAL:
      return "optional";
    case v1::CAMERA_USE_IGNORED:
      return "ignored";
    default:
      return "unknown";
  }
}

template <typename Numbers>
std::string List(const Numbers& numbers) {
  return absl::StrJoin(numbers, ", ");
}

std::string Blocks(
    const google::protobuf::RepeatedPtrField<v1::Block>& blocks) {
  Table table({"", "unit", "size"});
  for (const v1::Block& block : blocks) {
    table.Add({block.name(), block.unit(), absl::StrCat(block.size())});
  }
  return table.ToString(2);
}

std::string Properties(const v1::PolicyInfo& info) {
  Table table({"policy", info.name()});
  table.Add({"configuration", info.policy_config()});
  table.Add({"backend", absl::StrCat(info.backend(), ", ", info.precision())});
  table.Add({"model digest", info.model_digest()});
  table.Add({"preprocessing", info.preprocessing_checksum()});
  table.Add({"tokenizer", info.tokenizer_sha256()});
  table.Add({"action horizon", absl::StrCat(info.action_horizon(), " steps")});
  table.Add({"noise", absl::StrCat("[", List(info.noise_shape()), "]")});
  table.Add({"prompt",
             absl::StrCat("at most ", info.prompt_tokens_max(), " tokens")});
  if (info.has_default_prompt()) {
    table.Add({"default prompt", info.default_prompt()});
  }
  table.Add({"step counts", absl::StrCat(List(info.step_counts()), " (default ",
                                         info.default_steps(), ")")});
  table.Add({"batch sizes", List(info.batch_sizes())});
  if (info.has_control_rate_hz()) {
    table.Add({"control rate", absl::StrCat(info.control_rate_hz(), " Hz")});
  }
  return table.ToString();
}

std::string ActionsTable(const ActionChunk& chunk) {
  std::vector<std::string> head = {"step"};
  for (int a = 0; a < chunk.action_dim; ++a) {
    head.push_back(absl::StrCat("a", a));
  }
  Table table(head);
  for (int t = 0; t < chunk.horizon; ++t) {
    std::vector<std::string> row = {absl::StrCat(t)};
    for (float value : chunk.step(t)) {
      row.push_back(absl::StrFormat("%.6f", value));
    }
    table.Add(std::move(row));
  }
  return table.ToString();
}

}  // namespace

std::string InfoText(const v1::PolicyInfo& info) {
  Table cameras({"", "use", "model slot"});
  for (const v1::Camera& camera : info.cameras()) {
    cameras.Add({camera.name(), UseName(camera.use()), camera.model_slot()});
  }
  std::string text = absl::StrCat(
      Properties(info), "cameras\n", cameras.ToString(2), "state\n",
      Blocks(info.state()), "action\n", Blocks(info.action()));
  if (info.metadata().fields_size() > 0) {
    std::string metadata;
    if (google::protobuf::util::MessageToJsonString(info.metadata(), &metadata)
            .ok()) {
      absl::StrAppend(&text, "metadata\n  ", metadata, "\n");
    }
  }
  return text;
}

std::string InfoJson(const std::vector<v1::PolicyInfo>& infos) {
  v1::GetPolicyInfoResponse response;
  for (const v1::PolicyInfo& info : infos) *response.add_policies() = info;
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(response, &json, options);
  return status.ok() ? json : "{}\n";
}

std::string ChunkText(const ActionChunk& chunk, absl::Duration took) {
  Table stages({"stage", "ms"});
  for (const auto& [stage, duration] : chunk.stages) {
    stages.Add({stage, Milliseconds(duration)});
  }
  stages.Add({"client, in all", Milliseconds(took)});
  return absl::StrCat(
      "actions [", chunk.horizon, ", ", chunk.action_dim, "] of ", chunk.policy,
      "\n", ActionsTable(chunk), "\n",
      chunk.seed.has_value() ? absl::StrCat("seed ", *chunk.seed, ", ") : "",
      chunk.num_steps, " steps, wave of ", chunk.wave_rows, " in a batch of ",
      chunk.graph_rows, ", deadline ",
      absl::FormatDuration(chunk.deadline_served), ", model ",
      chunk.model_digest.substr(0, 12), "\n\n", stages.ToString());
}

std::string ChunkJson(const ActionChunk& chunk, absl::Duration took) {
  Json json;
  json["policy"] = chunk.policy;
  json["model_digest"] = chunk.model_digest;
  json["request_id"] = chunk.request_id;
  if (chunk.seed.has_value()) json["seed"] = *chunk.seed;
  json["num_steps"] = chunk.num_steps;
  json["wave_rows"] = chunk.wave_rows;
  json["graph_rows"] = chunk.graph_rows;
  json["deadline_ms"] = absl::ToDoubleMilliseconds(chunk.deadline_served);
  json["client_ms"] = absl::ToDoubleMilliseconds(took);
  json["stages_ms"] = Json::object();
  for (const auto& [stage, duration] : chunk.stages) {
    json["stages_ms"][stage] = absl::ToDoubleMilliseconds(duration);
  }
  json["actions"] = Json::array();
  for (int t = 0; t < chunk.horizon; ++t) {
    json["actions"].push_back(chunk.step(t));
  }
  return json.dump(2) + "\n";
}

}  // namespace piserve::client
