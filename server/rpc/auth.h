// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace piserve::server::rpc {

// One key that opens the public listener, by its hash.
struct ApiKey {
  std::string identity;               // of whoever holds it; for logs, fairness
  std::string key_sha256;             // 64 hex digits
  std::vector<std::string> policies;  // that it may use; empty: all
};

// Who is calling, and what they may use.
struct Identity {
  std::string name;  // empty where no credentials are asked for
  std::vector<std::string> policies;

  bool MayUse(absl::string_view policy) const;
};

// Judges the `authorization` metadata: "Bearer KEY" or "Api-Key KEY", the
// scheme in any case. Immutable, thread-safe.
//
// The key's sha256 is compared with every configured hash in constant time, so
// timing tells neither how near a guess was nor whose key it was.
class Authenticator {
 public:
  // No keys: everyone may do everything. INVALID_ARGUMENT if a hash is not 64
  // hex digits, doubled, or an identity is empty.
  static absl::StatusOr<Authenticator> Create(const std::vector<ApiKey>& keys);

  // `header`: the metadata's value; nullopt where it is absent.
  // UNAUTHENTICATED (NO_CREDENTIAL, BAD_CREDENTIAL).
  absl::StatusOr<Identity> Authenticate(
      std::optional<absl::string_view> header) const;

 private:
  using Hash = std::array<std::uint8_t, 32>;
  struct Entry {
    Hash hash;
    Identity identity;
  };

  std::vector<Entry> entries_;
};

// OK if `identity` may use `policy` (empty: `default_policy`), else
// PERMISSION_DENIED (POLICY_NOT_ALLOWED). With several policies and none named
// there is nothing to judge: OK.
absl::Status Authorize(const Identity& identity, absl::string_view policy,
                       absl::string_view default_policy);

}  // namespace piserve::server::rpc
