// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/auth.h"

#include <algorithm>
#include <set>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "openssl/crypto.h"
#include "openssl/sha.h"

namespace piserve::server::rpc {
namespace {

// The key behind "Bearer " or "Api-Key "; nullopt for any other scheme.
std::optional<absl::string_view> KeyIn(absl::string_view header) {
  for (const absl::string_view scheme : {"bearer ", "api-key "}) {
    if (absl::StartsWithIgnoreCase(header, scheme)) {
      return absl::StripAsciiWhitespace(header.substr(scheme.size()));
    }
  }
  return std::nullopt;
}

bool IsSha256Hex(const std::string& text) {
  return text.size() == 2 * SHA256_DIGEST_LENGTH &&
         std::all_of(text.begin(), text.end(),
                     [](unsigned char c) { return absl::ascii_isxdigit(c); });
}

}  // namespace

bool Identity::MayUse(absl::string_view policy) const {
  return policies.empty() ||
         std::find(policies.begin(), policies.end(), policy) != policies.end();
}

absl::StatusOr<Authenticator> Authenticator::Create(
    const std::vector<ApiKey>& keys) {
  Authenticator authenticator;
  std::set<Hash> seen;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const ApiKey& key = keys[i];
    const std::string where = absl::StrCat("api_keys[", i, "]");
    if (key.identity.empty()) {
      return InvalidField(absl::StrCat(where, ".identity"), "EMPTY",
                          "got nothing, want a name");
    }
    if (!IsSha256Hex(key.key_sha256)) {
      return InvalidField(absl::StrCat(where, ".key_sha256"), "NOT_A_SHA256",
                          absl::StrCat("got ", key.key_sha256.size(),
                                       " characters, want 64 hex digits"));
    }
    Entry entry;
    const std::string bytes = absl::HexStringToBytes(key.key_sha256);
    std::copy(bytes.begin(), bytes.end(), entry.hash.begin());
    if (!seen.insert(entry.hash).second) {
      return InvalidField(absl::StrCat(where, ".key_sha256"), "DOUBLED",
                          "got a hash that another key has");
    }
    entry.identity = {key.identity, key.policies};
    authenticator.entries_.push_back(std::move(entry));
  }
  return authenticator;
}

absl::StatusOr<Identity> Authenticator::Authenticate(
    std::optional<absl::string_view> header) const {
  if (entries_.empty()) return Identity{};
  if (!header.has_value()) {
    return WithReason(
        absl::UnauthenticatedError(
            "got no credential, want `authorization: Bearer KEY`"),
        "NO_CREDENTIAL");
  }
  const auto key = KeyIn(*header);
  Hash hash = {};
  if (key.has_value()) {
    SHA256(reinterpret_cast<const unsigned char*>(key->data()), key->size(),
           hash.data());
  }
  const Entry* match = nullptr;
  for (const Entry& entry : entries_) {  // All of them, whatever is found.
    if (CRYPTO_memcmp(hash.data(), entry.hash.data(), hash.size()) == 0) {
      match = &entry;
    }
  }
  if (!key.has_value() || match == nullptr) {
    return WithReason(absl::UnauthenticatedError(
                          "the credential is not one of this server's, want "
                          "`authorization: Bearer KEY` or `Api-Key KEY`"),
                      "BAD_CREDENTIAL");
  }
  return match->identity;
}

absl::Status Authorize(const Identity& identity, absl::string_view policy,
                       absl::string_view default_policy) {
  const absl::string_view meant = policy.empty() ? default_policy : policy;
  if (meant.empty() || identity.MayUse(meant)) return absl::OkStatus();
  return WithReason(absl::PermissionDeniedError(
                        absl::StrCat("policy: got \"", meant, "\", which ",
                                     identity.name, " may not use")),
                    "POLICY_NOT_ALLOWED");
}

}  // namespace piserve::server::rpc
