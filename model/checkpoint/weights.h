// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "model/variant.h"

namespace piserve::checkpoint {

enum class DType { kBFloat16, kFloat32 };

std::size_t SizeOf(DType dtype);  // bytes

// How one synthetic tensor is made (docs/synthetic.md); with it a device can
// fill the tensor itself.
struct SyntheticRule {
  std::uint64_t name_hash = 0;
  std::uint64_t seed = 0;
  float mean = 0;
  float amp = 0;
};

// One tensor, read only. `data` lives as long as `owner`: a mapping of the file
// (no copy) or a generated buffer.
struct Tensor {
  std::string name;  // canonical: openpi's
  DType dtype = DType::kBFloat16;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;  // row-major, little-endian; aligned to
                                    // sizeof(dtype)
  std::shared_ptr<const void> owner;
};

// All tensors that inference needs, by openpi's canonical names, whatever
// aliases and prefixes the file uses. Complete and of the right shapes once
// created: Find of a name in TensorSpecs(variant) cannot fail. Thread-safe.
class Weights {
 public:
  virtual ~Weights() = default;

  virtual const Variant& variant() const = 0;

  // NOT_FOUND for a name that the variant does not have. A synthetic source
  // generates the tensor at each call.
  virtual absl::StatusOr<Tensor> Find(std::string_view name) const = 0;

  // Set if the tensor is synthetic.
  virtual std::optional<SyntheticRule> Rule(std::string_view name) const = 0;

  // sha256 over the weights, hex. A mapped file: over its bytes, computed at
  // open; a synthetic source: over variant and seed.
  virtual const std::string& digest() const = 0;
};

}  // namespace piserve::checkpoint
