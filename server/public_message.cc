// SPDX-License-Identifier: Apache-2.0
#include "server/public_message.h"

#include <cctype>
#include <cstddef>

#include "google/protobuf/stubs/common.h"

namespace piserve::server {
namespace {

// gRPC sends it three times in trailers that hold 8 KiB: as it is, in
// google.rpc.Status and in BadRequest.
constexpr std::size_t kMaxMessageBytes = 512;

// True for codes whose message may come from a library rather than from us.
bool MayQuoteALibrary(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal ||
         code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

// A slash before a name. Hides a message like "read/write" too: it is the
// log's.
bool HoldsPath(absl::string_view text) {
  const auto is_name = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' ||
           c == '.' || c == '-';
  };
  for (std::size_t i = 0; i + 1 < text.size(); ++i) {
    if (text[i] != '/' && text[i] != '\\') continue;
    if (is_name(text[i + 1])) return true;
  }
  return false;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  return google::protobuf::internal::IsStructurallyValidUTF8(
      text.data(), static_cast<int>(text.size()));
}

std::string BoundedText(absl::string_view text) {
  std::string out(text.substr(0, kMaxMessageBytes));
  if (text.size() > kMaxMessageBytes) {
    while (!out.empty() && (out.back() & 0xC0) == 0x80) out.pop_back();
    if (!out.empty() && (out.back() & 0x80) != 0) out.pop_back();
    out += "...";
  }
  if (!IsUtf8(out)) {
    for (char& c : out) {
      if ((c & 0x80) != 0) c = '?';
    }
  }
  return out;
}

std::string PublicMessage(const absl::Status& status) {
  absl::string_view text = status.message();
  if (!MayQuoteALibrary(status.code())) return BoundedText(text);
  text = text.substr(0, text.find('\n'));
  if (HoldsPath(text)) return "internal error; the server's log has the cause";
  return BoundedText(text);
}

}  // namespace piserve::server
