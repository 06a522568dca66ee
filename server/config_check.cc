// SPDX-License-Identifier: Apache-2.0
#include "server/config_check.h"

#include <filesystem>

#include "absl/status/statusor.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "server/address.h"

namespace piserve::server {
namespace {

constexpr std::size_t kMaxNameLength = 64;

}  // namespace

absl::Status BadConfig(absl::string_view field, absl::string_view got,
                       absl::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat("configuration: ", field, ": got ", got, ", want ", want));
}

std::string ConfigChecker::Path(const std::string& path) const {
  if (path.empty() || path.front() == '/' || folder_.empty()) return path;
  return (std::filesystem::path(folder_) / path).lexically_normal().string();
}

std::string ConfigChecker::Name(absl::string_view field,
                                const std::string& name) {
  bool good = !name.empty() && name.size() <= kMaxNameLength;
  for (const char c : name) {
    good &= absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
  }
  if (!good) {
    Fail(field,
         absl::StrCat("\"", absl::CHexEscape(name.substr(0, kMaxNameLength)),
                      "\", ", name.size(), " bytes"),
         "1 to 64 letters, digits, '.', '_' or '-'");
  }
  return name;
}

std::string ConfigChecker::Address(absl::string_view field,
                                   const std::string& value,
                                   const std::string& otherwise) {
  if (value.empty()) return otherwise;
  const absl::StatusOr<HostPort> address = ParseAddress(value);
  if (!address.ok() && status_.ok()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(
        "configuration: ", field, ": ", address.status().message()));
  }
  return value;
}

std::string ConfigField(absl::string_view list, int index,
                        absl::string_view name) {
  return absl::StrCat(list, "[", index, "].", name);
}

}  // namespace piserve::server
