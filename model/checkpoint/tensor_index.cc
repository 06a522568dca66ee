// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/tensor_index.h"

#include <array>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/tensor_spec.h"

namespace piserve::checkpoint {
namespace {

constexpr std::string_view kPaliGemma = "paligemma_with_expert.paligemma.";

// Nesting of transformers before 4.52, below kPaliGemma; new names fit no row.
constexpr std::array<std::pair<std::string_view, std::string_view>, 4>
    kOldNesting = {{
        {"language_model.model.", "model.language_model."},
        {"language_model.lm_head.", "lm_head."},
        {"vision_tower.", "model.vision_tower."},
        {"multi_modal_projector.", "model.multi_modal_projector."},
    }};

constexpr std::array<std::string_view, 4> kIgnoredPrefixes = {
    "paligemma_with_expert.gemma_expert.lm_head.",
    "proprio_history_proj.",
    "normalize_",
    "unnormalize_",
};

bool IsIgnored(std::string_view name) {
  for (const std::string_view prefix : kIgnoredPrefixes) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

std::string WithNewNesting(std::string_view name) {
  if (!name.starts_with(kPaliGemma)) return std::string(name);
  const std::string_view rest = name.substr(kPaliGemma.size());
  for (const auto& [from, to] : kOldNesting) {
    if (!rest.starts_with(from)) continue;
    std::string mapped(kPaliGemma);
    mapped += to;
    mapped += rest.substr(from.size());
    return mapped;
  }
  return std::string(name);
}

}  // namespace

std::optional<std::string> CanonicalName(std::string_view stored) {
  constexpr std::string_view kModel = "model.";
  if (stored.starts_with(kModel)) stored.remove_prefix(kModel.size());
  if (IsIgnored(stored)) return std::nullopt;
  return WithNewNesting(stored);
}

absl::StatusOr<TensorIndex> IndexTensors(const Safetensors& file) {
  TensorIndex index;
  for (const StoredTensor& tensor : file.tensors()) {
    std::optional<std::string> name = CanonicalName(tensor.name);
    if (!name.has_value()) continue;
    const auto [it, inserted] = index.emplace(*std::move(name), &tensor);
    if (!inserted) {
      return absl::FailedPreconditionError(
          absl::StrCat("tensor ", Quoted(tensor.name), ": is the same as ",
                       Quoted(it->second->name), ", want one of the two"));
    }
  }
  if (auto alias = index.extract(std::string(kEmbedTokens)); !alias.empty()) {
    index.insert_or_assign(std::string(kTokenEmbedding), alias.mapped());
  }
  return index;
}

}  // namespace piserve::checkpoint
