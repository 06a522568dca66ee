// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/status_codec.h"

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "model/error.h"
#include "server/public_message.h"

namespace piserve::server::rpc {
namespace {

using google::protobuf::Any;

constexpr char kDomain[] = "piserve";

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
  violation->set_field(BoundedText(field));
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
