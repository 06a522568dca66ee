// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/variant_json.h"

#include <initializer_list>
#include <limits>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/mapped_file.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;

// A field of the JSON and where its number goes.
struct IntTarget {
  std::string_view name;
  int* value;
};

absl::Status ReadInts(const json& object, std::string_view where,
                      std::initializer_list<IntTarget> targets) {
  for (const IntTarget& target : targets) {
    absl::StatusOr<std::int64_t> number =
        IntegerField(object, where, target.name, 1,
                     std::numeric_limits<std::int32_t>::max());
    if (!number.ok()) return number.status();
    *target.value = static_cast<int>(*number);
  }
  return absl::OkStatus();
}

absl::Status ReadVision(const json& file, VisionSize& size) {
  absl::StatusOr<const json*> object = Field(file, "", "vision");
  if (!object.ok()) return object.status();
  return ReadInts(**object, "vision",
                  {{"width", &size.width},
                   {"depth", &size.depth},
                   {"heads", &size.heads},
                   {"mlp", &size.mlp},
                   {"patch", &size.patch},
                   {"image", &size.image}});
}

absl::Status ReadGemma(const json& file, std::string_view name,
                       GemmaSize& size) {
  absl::StatusOr<const json*> object = Field(file, "", name);
  if (!object.ok()) return object.status();
  return ReadInts(**object, name,
                  {{"width", &size.width},
                   {"depth", &size.depth},
                   {"mlp", &size.mlp},
                   {"heads", &size.heads},
                   {"kv_heads", &size.kv_heads},
                   {"head_dim", &size.head_dim}});
}

absl::StatusOr<Variant> ReadVariant(const json& file) {
  Variant variant;
  absl::StatusOr<const json*> pi05 = Field(file, "", "pi05");
  if (!pi05.ok()) return pi05.status();
  if (!(*pi05)->is_boolean()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "pi05: got ", DescribeJson(**pi05), ", want true or false"));
  }
  variant.pi05 = (*pi05)->get<bool>();
  absl::Status status = ReadInts(file, "",
                                 {{"action_dim", &variant.action_dim},
                                  {"action_horizon", &variant.action_horizon},
                                  {"max_token_len", &variant.max_token_len}});
  if (status.ok()) status = ReadVision(file, variant.vision);
  if (status.ok()) status = ReadGemma(file, "vlm", variant.vlm);
  if (status.ok()) {
    status = ReadInts(file["vlm"], "vlm", {{"vocab", &variant.vocab}});
  }
  if (status.ok()) status = ReadGemma(file, "expert", variant.expert);
  if (status.ok()) status = CheckVariant(variant);
  if (!status.ok()) return status;
  return variant;
}

absl::StatusOr<std::optional<std::uint64_t>> ReadSeed(const json& file) {
  const auto it = file.find("seed");
  if (it == file.end()) return std::nullopt;
  if (!it->is_number_unsigned()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "seed: got ", DescribeJson(*it), ", want an integer from 0 to 2^64-1"));
  }
  return std::make_optional(it->get<std::uint64_t>());
}

nlohmann::ordered_json GemmaToJson(const GemmaSize& size) {
  return {{"width", size.width},       {"depth", size.depth},
          {"mlp", size.mlp},           {"heads", size.heads},
          {"kv_heads", size.kv_heads}, {"head_dim", size.head_dim}};
}

}  // namespace

absl::StatusOr<VariantFile> ParseVariantJson(std::string_view text) {
  absl::StatusOr<json> file = ParseJson(text);
  if (!file.ok()) return file.status();
  absl::StatusOr<Variant> variant = ReadVariant(*file);
  if (!variant.ok()) return variant.status();
  absl::StatusOr<std::optional<std::uint64_t>> seed = ReadSeed(*file);
  if (!seed.ok()) return seed.status();
  return VariantFile{.variant = *variant, .seed = *seed};
}

absl::StatusOr<VariantFile> ReadVariantJson(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  return ParseVariantJson(*text);
}

std::string ToJson(const VariantFile& file) {
  const Variant& variant = file.variant;
  const VisionSize& vision = variant.vision;
  nlohmann::ordered_json json = {{"pi05", variant.pi05},
                                 {"action_dim", variant.action_dim},
                                 {"action_horizon", variant.action_horizon},
                                 {"max_token_len", variant.max_token_len},
                                 {"vision",
                                  {{"width", vision.width},
                                   {"depth", vision.depth},
                                   {"heads", vision.heads},
                                   {"mlp", vision.mlp},
                                   {"patch", vision.patch},
                                   {"image", vision.image}}},
                                 {"vlm", GemmaToJson(variant.vlm)},
                                 {"expert", GemmaToJson(variant.expert)}};
  json["vlm"]["vocab"] = variant.vocab;
  if (file.seed.has_value()) json["seed"] = *file.seed;
  return json.dump(1) + "\n";
}

}  // namespace piserve::checkpoint
