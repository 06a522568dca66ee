// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/checkpoint/safetensors.h"

namespace piserve::checkpoint {

// Writes a safetensors file one tensor at a time, byte for byte as the
// safetensors library does when the tensors come in its order: larger dtypes
// first, then by name.
//
//   auto writer = SafetensorsWriter::Create(path, headers, metadata);
//   for (each header, in order) writer->Append(its bytes);
//   writer->Finish();
class SafetensorsWriter {
 public:
  struct Header {
    std::string name;
    StoredDType dtype = StoredDType::kBF16;
    std::vector<std::int64_t> shape;
  };

  // FAILED_PRECONDITION if the file cannot be written. Replaces an old file.
  static absl::StatusOr<SafetensorsWriter> Create(
      const std::string& path, std::vector<Header> headers,
      const std::map<std::string, std::string>& metadata);

  // The next tensor's bytes. INVALID_ARGUMENT if their number is not its
  // header's.
  absl::Status Append(std::span<const std::byte> data);

  // INVALID_ARGUMENT if tensors are missing; UNAVAILABLE if the disk refused
  // anything since Create.
  absl::Status Finish();

 private:
  SafetensorsWriter() = default;

  std::ofstream out_;
  std::vector<Header> headers_;
  std::size_t next_ = 0;
};

}  // namespace piserve::checkpoint
