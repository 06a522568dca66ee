// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/checkpoint/safetensors.h"

namespace piserve::checkpoint {

// openpi's name of a tensor that openpi or lerobot stored: one leading "model."
// is stripped, then the nesting of transformers before 4.52 is mapped. nullopt
// for what every loader may ignore: the expert's dead lm_head,
// proprio_history_proj, and old lerobot's normalisation buffers.
// Source: docs/pi0.md 3.5.
std::optional<std::string> CanonicalName(std::string_view stored);

// A file's tensors by canonical name; the tensors are borrowed from the file.
using TensorIndex = std::map<std::string, const StoredTensor*, std::less<>>;

// FAILED_PRECONDITION if two tensors end under one name. The token embedding
// may be stored twice, as embed_tokens and as lm_head: then embed_tokens wins,
// as in lerobot's load order.
absl::StatusOr<TensorIndex> IndexTensors(const Safetensors& file);

}  // namespace piserve::checkpoint
