// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/config.h"
#include "server/config.pb.h"

namespace piserve::server {

// "configuration: FIELD: got GOT, want WANT".
absl::Status BadConfig(absl::string_view field, absl::string_view got,
                       absl::string_view want);

// Checks values and keeps the first error: a reader is a list of its fields.
class ConfigChecker {
 public:
  // Paths are relative to `folder`.
  explicit ConfigChecker(absl::string_view folder) : folder_(folder) {}

  void Fail(absl::string_view field, absl::string_view got,
            absl::string_view want) {
    if (status_.ok()) status_ = BadConfig(field, got, want);
  }

  template <typename T>
  T Range(absl::string_view field, T value, T low, T high) {
    if (value >= low && value <= high) return value;
    Fail(field, absl::StrCat(value), absl::StrCat(low, " to ", high));
    return low;
  }

  std::string Text(absl::string_view field, const std::string& value) {
    if (value.empty()) Fail(field, "nothing", "a value");
    return value;
  }

  // Empty stays empty.
  std::string Path(const std::string& path) const;

  // What metrics, logs and the wire may show: no quoting needed anywhere.
  std::string Name(absl::string_view field, const std::string& name);

  std::string Address(absl::string_view field, const std::string& value,
                      const std::string& otherwise);

  const absl::Status& status() const { return status_; }

 private:
  const std::string folder_;
  absl::Status status_;
};

// "LIST[INDEX].NAME".
std::string ConfigField(absl::string_view list, int index,
                        absl::string_view name);

// The entries of `policies`.
std::vector<PolicyEntry> ReadPolicies(const config::ServerConfig& in,
                                      ConfigChecker& check);

}  // namespace piserve::server
