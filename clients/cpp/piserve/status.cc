// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/status.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/any.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace piserve::client {
namespace {

std::string TypeUrl(const google::protobuf::Message& message) {
  return absl::StrCat("type.googleapis.com/",
                      message.GetDescriptor()->full_name());
}

template <typename Detail>
std::optional<Detail> GetDetail(const absl::Status& status) {
  Detail detail;
  const auto payload = status.GetPayload(TypeUrl(detail));
  if (!payload.has_value()) return std::nullopt;
  if (!detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

void SetDetail(const google::protobuf::Message& detail, absl::Status* status) {
  status->SetPayload(TypeUrl(detail), absl::Cord(detail.SerializeAsString()));
}

// An error that says nothing is gRPC's own mostly, not our server's.
std::string MessageOf(absl::StatusCode code, const std::string& message) {
  if (!message.empty()) return message;
  if (code == absl::StatusCode::kUnimplemented) {
    return "the server has no such service: is this the public port of a "
           "piserve server (piserve.v1.PolicyService)?";
  }
  return absl::StrCat("got ", absl::StatusCodeToString(code),
                      " and no message");
}

void SetPayloads(
    const google::protobuf::RepeatedPtrField<google::protobuf::Any>& details,
    absl::Status* status) {
  for (const google::protobuf::Any& detail : details) {
    status->SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
}

}  // namespace

std::string ErrorReason(const absl::Status& status) {
  const auto info = GetDetail<google::rpc::ErrorInfo>(status);
  return info.has_value() ? info->reason() : "";
}

std::string ErrorField(const absl::Status& status) {
  const auto bad = GetDetail<google::rpc::BadRequest>(status);
  if (!bad.has_value() || bad->field_violations().empty()) return "";
  return bad->field_violations(0).field();
}

std::optional<absl::Duration> RetryAfter(const absl::Status& status) {
  const auto retry = GetDetail<google::rpc::RetryInfo>(status);
  if (!retry.has_value()) return std::nullopt;
  return absl::Seconds(retry->retry_delay().seconds()) +
         absl::Nanoseconds(retry->retry_delay().nanos());
}

absl::Status WithReason(absl::Status status, absl::string_view reason) {
  google::rpc::ErrorInfo info;
  info.set_domain("piserve");
  info.set_reason(std::string(reason));
  SetDetail(info, &status);
  return status;
}

absl::Status InvalidObservation(absl::string_view field,
                                absl::string_view message) {
  absl::Status status =
      WithReason(absl::InvalidArgumentError(absl::StrCat(field, ": ", message)),
                 kReasonInvalidObservation);
  google::rpc::BadRequest bad;
  auto* violation = bad.add_field_violations();
  violation->set_field(std::string(field));
  violation->set_description(std::string(message));
  SetDetail(bad, &status);
  return status;
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  absl::Status result(code, MessageOf(code, status.error_message()));
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    SetPayloads(details.details(), &result);
  }
  if (absl::IsCancelled(result) && ErrorReason(result).empty()) {
    return absl::UnavailableError(
        "the server cancelled the call, which it does when it stops");
  }
  return result;
}

absl::Status FromWire(const v1::Error& error) {
  const bool known = error.code() > 0 && error.code() <= 16;
  const auto code = known ? static_cast<absl::StatusCode>(error.code())
                          : absl::StatusCode::kUnknown;
  absl::Status result(code, MessageOf(code, error.message()));
  SetPayloads(error.details(), &result);
  return result;
}

}  // namespace piserve::client
