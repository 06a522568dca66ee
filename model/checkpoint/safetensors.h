// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace piserve::checkpoint {

// What a safetensors file may hold; wider than what weights may be (DType).
enum class StoredDType {
  kBool,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64,
};

std::string_view Name(StoredDType dtype);  // "BF16", as in the file
std::size_t SizeOf(StoredDType dtype);     // bytes

// One tensor as the file has it.
struct StoredTensor {
  std::string name;
  StoredDType dtype = StoredDType::kBF16;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;  // row-major, little-endian
};

// Dtype and shape in the words of error messages: "BF16 [64, 32]".
std::string Describe(StoredDType dtype, std::span<const std::int64_t> shape);

// A safetensors file, read in place. Layout: u64 header length, a JSON object
// {"name": {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__":
// {string: string}}, then the data that the offsets count from.
//
// Everything is checked before a tensor is handed out: the header's length (at
// most 100 MB), its JSON and types, names given twice, dtypes, the product of
// every shape against its bytes, and that the tensors tile the data without
// overlap, hole or rest, each aligned to its dtype (the last is ours: data is
// used where it lies). FAILED_PRECONDITION otherwise, with one line that names
// the tensor, what was found and what was wanted.
// Source: huggingface safetensors, tensor.rs.
class Safetensors {
 public:
  // Maps the file. Messages do not hold the path.
  static absl::StatusOr<Safetensors> Open(const std::string& path);

  // Reads `bytes`, which `owner` keeps alive and which should be aligned to 8.
  static absl::StatusOr<Safetensors> Parse(std::span<const std::byte> bytes,
                                           std::shared_ptr<const void> owner);

  // In the order of their data.
  std::span<const StoredTensor> tensors() const { return tensors_; }

  // nullptr if there is none.
  const StoredTensor* Find(std::string_view name) const;

  // The whole file, header included.
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::shared_ptr<const void>& owner() const { return owner_; }

 private:
  Safetensors() = default;

  std::span<const std::byte> bytes_;
  std::shared_ptr<const void> owner_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, std::size_t, std::less<>> index_;
};

}  // namespace piserve::checkpoint
