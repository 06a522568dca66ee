// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace piserve::checkpoint {

// A file mapped read only; never copied. `owner` keeps the mapping alive.
// Whoever shortens the file while it is mapped kills the process (SIGBUS):
// replace checkpoints by renaming, never in place.
struct MappedFile {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

// NOT_FOUND if there is no such file, FAILED_PRECONDITION if it is empty, no
// regular file, or may not be read.
absl::StatusOr<MappedFile> MapFile(const std::string& path);

// The whole text of a small file. NOT_FOUND as above; FAILED_PRECONDITION if
// it has more than 16 MiB.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);

}  // namespace piserve::checkpoint
