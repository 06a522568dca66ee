// SPDX-License-Identifier: Apache-2.0
#include "tests/support/golden_policy.h"

#include <utility>

#include "tests/support/synthetic_inputs.h"

namespace piserve::test {
namespace {

using nlohmann::json;

// Layout and float images are the client's to turn into RGB8: u8 / 255 in
// float32 comes back exactly.
GoldenObservation::Image ImageOf(std::string name, const json& described) {
  const json& image = described.at("image");
  GoldenObservation::Image made = {.name = std::move(name),
                                   .width = image.at("w"),
                                   .height = image.at("h"),
                                   .pixels = {}};
  made.pixels = SyntheticImage(image.at("seed"), made.height, made.width);
  return made;
}

void AppendState(const json& described, std::vector<double>* state) {
  const json& data = described.at("data");
  const std::vector<double> values =
      data.is_array() ? Numbers(data) : std::vector<double>{Number(data)};
  state->insert(state->end(), values.begin(), values.end());
}

FieldStats StatsOf(const json& field) {
  return {.mean = Numbers(field.at("mean")),
          .std = Numbers(field.at("std")),
          .q01 = Numbers(field.at("q01")),
          .q99 = Numbers(field.at("q99"))};
}

GemmaSize GemmaOf(const json& sizes) {
  return {.width = sizes.at("width"),
          .depth = sizes.at("depth"),
          .mlp = sizes.at("mlp"),
          .heads = sizes.at("heads"),
          .kv_heads = sizes.at("kv_heads"),
          .head_dim = sizes.at("head_dim")};
}

}  // namespace

Observation GoldenObservation::view() const {
  Observation observation;
  if (prompt.has_value()) observation.prompt = *prompt;
  observation.state = state;
  for (const Image& image : images) {
    observation.images.push_back(
        {.name = image.name,
         .encoding = ImageEncoding::kRgb8,
         .width = image.width,
         .height = image.height,
         .data = {reinterpret_cast<const char*>(image.pixels.data()),
                  image.pixels.size()}});
  }
  return observation;
}

GoldenPolicy::GoldenPolicy(const std::string& name)
    : json_(GoldenJson("policy/" + name + ".json")),
      tensors_("policy/" + name + ".safetensors") {}

PolicyConfig GoldenPolicy::config() const {
  PolicyConfig config =
      *FindPolicyConfig(json_.at("config").get<std::string>());
  config.action_horizon = json_.at("action_horizon");
  return config;
}

Variant GoldenPolicy::variant() const {
  const json sizes =
      GoldenJson(json_.at("checkpoint").get<std::string>() + "/variant.json");
  const json& vision = sizes.at("vision");
  Variant variant;
  variant.pi05 = sizes.at("pi05");
  variant.vision = {.width = vision.at("width"),
                    .depth = vision.at("depth"),
                    .heads = vision.at("heads"),
                    .mlp = vision.at("mlp"),
                    .patch = vision.at("patch"),
                    .image = vision.at("image")};
  variant.vlm = GemmaOf(sizes.at("vlm"));
  variant.expert = GemmaOf(sizes.at("expert"));
  variant.vocab = sizes.at("vlm").at("vocab");
  variant.action_dim = sizes.at("action_dim");
  variant.action_horizon = json_.at("action_horizon");
  variant.max_token_len = json_.at("max_token_len");
  return variant;
}

NormStats GoldenPolicy::stats() const {
  const json file =
      GoldenJson(json_.at("checkpoint").get<std::string>() + "/assets/" +
                 json_.at("asset_id").get<std::string>() + "/norm_stats.json");
  const json& stats = file.at("norm_stats");
  return {.state = StatsOf(stats.at("state")),
          .actions = StatsOf(stats.at("actions"))};
}

absl::StatusOr<std::unique_ptr<transform::Pipeline>>
GoldenPolicy::MakePipeline() const {
  auto tokenizer =
      transform::Tokenizer::Load(GoldenPath("tokenizer/tiny.model"));
  if (!tokenizer.ok()) return tokenizer.status();
  return transform::Pipeline::Create(
      config(), variant(), stats(), *std::move(tokenizer),
      {.long_prompt = transform::LongPrompt::kTruncate});
}

int GoldenPolicy::size() const {
  return static_cast<int>(json_.at("observations").size());
}

GoldenObservation GoldenPolicy::observation(int i) const {
  const json& described = Entry(i).at("observation");
  GoldenObservation observation;
  const json& images =
      described.contains("images") ? described.at("images") : described;
  for (const auto& [name, value] : images.items()) {
    if (value.is_object() && value.contains("image")) {
      observation.images.push_back(ImageOf(name, value));
    }
  }
  for (const char* name :
       {"state", "observation/state", "observation/joint_position",
        "observation/gripper_position"}) {
    if (described.contains(name)) {
      AppendState(described.at(name), &observation.state);
    }
  }
  if (described.contains("prompt")) {
    const json& prompt = described.at("prompt");
    observation.prompt = prompt.is_object() ? prompt.at("bytes_utf8") : prompt;
  }
  return observation;
}

bool GoldenPolicy::camera_mask(int i, const std::string& slot) const {
  return Entry(i).at("image_masks").at(slot);
}

std::string GoldenPolicy::model_image_fnv1a64(int i,
                                              const std::string& slot) const {
  return Entry(i).at("model_image_fnv1a64").at(slot);
}

std::vector<std::int32_t> GoldenPolicy::tokens(int i) const {
  const auto ids = tensors_.Get<std::int64_t>(Key(i, "tokens"));
  const auto mask = tensors_.Get<std::uint8_t>(Key(i, "token_mask"));
  std::vector<std::int32_t> valid;
  for (std::size_t k = 0; k < ids.size(); ++k) {
    if (mask[k]) valid.push_back(static_cast<std::int32_t>(ids[k]));
  }
  return valid;
}

std::vector<double> GoldenPolicy::model_state(int i) const {
  return tensors_.Get<double>(Key(i, "model_state"));
}

std::vector<float> GoldenPolicy::model_actions(
    int i, std::string_view precision) const {
  return tensors_.Get<float>(Key(i, "model_actions") + "." +
                             std::string(precision));
}

std::vector<double> GoldenPolicy::actions(int i,
                                          std::string_view precision) const {
  return tensors_.Get<double>(Key(i, "actions") + "." + std::string(precision));
}

const nlohmann::json& GoldenPolicy::Entry(int i) const {
  return json_.at("observations").at(i);
}

std::string GoldenPolicy::Key(int i, std::string_view tensor) const {
  return std::to_string(i) + "." + std::string(tensor);
}

}  // namespace piserve::test
