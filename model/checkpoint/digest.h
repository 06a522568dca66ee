// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace piserve::checkpoint {

// sha256, 64 lower-case hexadecimal digits. INTERNAL if OpenSSL refuses.
absl::StatusOr<std::string> Sha256(std::span<const std::byte> bytes);

// The digest of a weights file: sha256 over the binary sha256s of its 64 MiB
// pieces in order, the last one shorter. Pieces are hashed by several threads,
// so that 7 GB take seconds. By hand:
//   split -b 64M --filter='openssl sha256 -binary' FILE | sha256sum
absl::StatusOr<std::string> FileDigest(std::span<const std::byte> bytes);

}  // namespace piserve::checkpoint
