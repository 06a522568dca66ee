// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "model/variant.h"

namespace piserve::checkpoint {

// The content of variant.json: the sizes that weights of another size than the
// released ones need beside them.
//   {"pi05", "action_dim", "action_horizon", "max_token_len",
//    "vision": {"width", "depth", "heads", "mlp", "patch", "image"},
//    "vlm": {"width", "depth", "mlp", "heads", "kv_heads", "head_dim",
//            "vocab"},
//    "expert": as vlm without vocab, "seed": optional}
struct VariantFile {
  Variant variant;
  std::optional<std::uint64_t> seed;  // of synthetic weights
};

// Unknown fields are ignored. FAILED_PRECONDITION if one is missing or of a
// wrong type, or if CheckVariant refuses the sizes.
absl::StatusOr<VariantFile> ParseVariantJson(std::string_view json);

// NOT_FOUND if there is no such file.
absl::StatusOr<VariantFile> ReadVariantJson(const std::string& path);

std::string ToJson(const VariantFile& file);

}  // namespace piserve::checkpoint
