// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gmock/gmock.h"
#include "model/checkpoint/safetensors.h"
#include "model/variant.h"

// Checkpoint files, good and broken, for the tests of model/checkpoint.
namespace piserve::checkpoint::test {

// Matches a status or StatusOr of this code whose message is one line and holds
// every one of `parts`.
MATCHER_P2(FailsWith, code, parts, "") {
  absl::Status status;
  if constexpr (std::is_convertible_v<arg_type, absl::Status>) {
    status = arg;
  } else {
    status = arg.status();
  }
  *result_listener << status.ToString();
  const std::string message(status.message());
  for (const std::string& part : parts) {
    if (message.find(part) == std::string::npos) return false;
  }
  return status.code() == code && message.find('\n') == std::string::npos;
}

inline auto Refuses(std::vector<std::string> parts) {
  return FailsWith(absl::StatusCode::kFailedPrecondition, parts);
}

// A folder that is deleted with the object.
class TempFolder {
 public:
  TempFolder();
  ~TempFolder();
  TempFolder(const TempFolder&) = delete;

  std::string path() const { return path_; }

  // Writes a file, making folders on the way; returns its path.
  std::string Write(const std::string& name, std::string_view bytes) const;

 private:
  std::string path_;
};

// A safetensors file from its header and data, whatever they say.
std::string RawFile(std::string_view header, std::string_view data);

// Parses a copy of `bytes` that lives as long as the result.
absl::StatusOr<Safetensors> ParseCopy(std::string_view bytes);

// The smallest variants that CheckVariant takes, for tests of structure.
Variant MicroVariant(bool pi05);

// A tensor to be written.
struct Entry {
  std::string name;
  StoredDType dtype = StoredDType::kBF16;
  std::vector<std::int64_t> shape;
  std::string data;
};

// The tensors of a variant, zeros in BF16, as openpi's converter writes them.
std::vector<Entry> EntriesOf(const Variant& variant);

Entry Zeros(std::string name, StoredDType dtype,
            std::vector<std::int64_t> shape);

Entry* FindEntry(std::vector<Entry>& entries, std::string_view name);

void Remove(std::vector<Entry>& entries, std::string_view name);

// The bytes of a well-formed file with these tensors, larger dtypes first.
std::string FileOf(std::vector<Entry> entries);

}  // namespace piserve::checkpoint::test
