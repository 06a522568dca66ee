// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "model/variant.h"

namespace piserve::checkpoint {

inline constexpr std::string_view kVisionPrefix =
    "paligemma_with_expert.paligemma.model.vision_tower.vision_model.";
inline constexpr std::string_view kProjectorPrefix =
    "paligemma_with_expert.paligemma.model.multi_modal_projector.linear.";
inline constexpr std::string_view kVlmPrefix =
    "paligemma_with_expert.paligemma.model.language_model.";
inline constexpr std::string_view kExpertPrefix =
    "paligemma_with_expert.gemma_expert.model.";
// The token embedding, under the name that openpi's files keep of the tied
// pair.
inline constexpr std::string_view kTokenEmbedding =
    "paligemma_with_expert.paligemma.lm_head.weight";
// Its other name, which those files drop.
inline constexpr std::string_view kEmbedTokens =
    "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight";

struct TensorSpec {
  std::string name;                 // canonical: openpi's
  std::vector<std::int64_t> shape;  // linear weights are [out, in]
};

// Every tensor that a checkpoint of this variant must hold, sorted by name:
// all that Weights::Find knows. No action depends on the VLM's final norm.
// Source: openpi models_pytorch; docs/pi0.md 3.4.
std::vector<TensorSpec> TensorSpecs(const Variant& variant);

// gemma_expert.lm_head.weight: in openpi's files as a left-over of a tie that
// was cut; never read here, and a file may lack it.
TensorSpec DeadExpertHead(const Variant& variant);

}  // namespace piserve::checkpoint
