// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_codec.h"

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/any.pb.h"
#include "google/protobuf/stubs/common.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "model/error.h"

namespace piserve::server::rpc {
namespace {

using google::protobuf::Any;

constexpr char kDomain[] = "piserve";

// The message travels three times in the trailers, which hold 8 KiB: as it is,
// in google.rpc.Status and in BadRequest.
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

// At most kMaxMessageBytes of valid UTF-8.
std::string Bounded(absl::string_view text) {
  std::string out(text.substr(0, kMaxMessageBytes));
  if (text.size() > kMaxMessageBytes) {
    while (!out.empty() && (out.back() & 0xC0) == 0x80) out.pop_back();
    if (!out.empty() && (out.back() & 0x80) != 0) out.pop_back();
    out += "...";
  }
  if (!google::protobuf::internal::IsStructurallyValidUTF8(
          out.data(), static_cast<int>(out.size()))) {
    for (char& c : out) {
      if ((c & 0x80) != 0) c = '?';
    }
  }
  return out;
}

std::string PublicMessage(const absl::Status& status) {
  absl::string_view text = status.message();
  if (!MayQuoteALibrary(status.code())) return Bounded(text);
  text = text.substr(0, text.find('\n'));
  if (HoldsPath(text)) return "internal error; the server's log has the cause";
  return Bounded(text);
}

Any Pack(const google::protobuf::Message& message) {
  Any any;
  any.PackFrom(message);
  return any;
}

Any ErrorInfo(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  info.set_domain(kDomain);
  info.set_reason(
      ReasonOf(status).value_or(absl::StatusCodeToString(status.code())));
  for (auto& [key, value] : MetadataOf(status)) {
    (*info.mutable_metadata())[key] = value;
  }
  return Pack(info);
}

Any BadRequest(const std::string& field, const std::string& message) {
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field(Bounded(field));
  violation->set_description(message);
  return Pack(bad);
}

Any RetryInfo(absl::Duration retry_after) {
  const std::int64_t ns = absl::ToInt64Nanoseconds(
      std::clamp(retry_after, absl::ZeroDuration(), absl::Hours(1)));
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(ns / 1'000'000'000);
  retry.mutable_retry_delay()->set_nanos(
      static_cast<std::int32_t>(ns % 1'000'000'000));
  return Pack(retry);
}

std::vector<Any> Details(const absl::Status& status,
                         const std::string& message) {
  std::vector<Any> details = {ErrorInfo(status)};
  if (const auto field = FieldOf(status)) {
    details.push_back(BadRequest(*field, message));
  }
  if (const auto after = RetryAfterOf(status)) {
    details.push_back(RetryInfo(*after));
  }
  return details;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const std::string message = PublicMessage(status);
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(message);
  for (Any& detail : Details(status, message)) {
    *rich.add_details() = std::move(detail);
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), message,
                      rich.SerializeAsString());
}

v1::Error ToError(const absl::Status& status) {
  v1::Error error;
  error.set_code(static_cast<int>(status.code()));
  error.set_message(PublicMessage(status));
  for (Any& detail : Details(status, error.message())) {
    *error.add_details() = std::move(detail);
  }
  return error;
}

std::optional<std::string> RetryPushbackMs(const absl::Status& status) {
  const auto after = RetryAfterOf(status);
  if (!after.has_value()) return std::nullopt;
  // Rounded up: never earlier than asked for.
  return absl::StrCat(absl::ToInt64Milliseconds(
      absl::Ceil(std::clamp(*after, absl::ZeroDuration(), absl::Hours(1)),
                 absl::Milliseconds(1))));
}

}  // namespace piserve::server::rpc
