// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/operate.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "clients/cpp/piserve/context.h"
#include "clients/cpp/piserve/status.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "piserve/admin/v1/admin.grpc.pb.h"

namespace piserve::client {
namespace {

constexpr char kLevelPrefix[] = "LOG_LEVEL_";

}  // namespace

std::optional<admin::v1::LogLevel> ParseLogLevel(const std::string& name) {
  admin::v1::LogLevel level;
  const std::string wire =
      absl::StrCat(kLevelPrefix, absl::AsciiStrToUpper(name));
  if (!admin::v1::LogLevel_Parse(wire, &level) ||
      level == admin::v1::LOG_LEVEL_UNSPECIFIED) {
    return std::nullopt;
  }
  return level;
}

std::string LogLevelName(admin::v1::LogLevel level) {
  return absl::AsciiStrToLower(
      absl::StripPrefix(admin::v1::LogLevel_Name(level), kLevelPrefix));
}

template <typename Service, typename Method, typename Request,
          typename Response>
absl::Status Operator::Call(Method method, const Request& request,
                            Response* response) const {
  const auto stub = Service::NewStub(channel_);
  grpc::ClientContext context;
  context.set_deadline(GrpcDeadline(timeout_));
  return FromGrpc(((*stub).*method)(&context, request, response));
}

absl::StatusOr<std::string> Operator::Health(const std::string& service) const {
  using grpc::health::v1::Health;
  using grpc::health::v1::HealthCheckResponse;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  HealthCheckResponse response;
  const absl::Status status =
      Call<grpc::health::v1::Health>(&Health::Stub::Check, request, &response);
  if (!status.ok()) return status;
  return HealthCheckResponse::ServingStatus_Name(response.status());
}

absl::Status Operator::Drain() const {
  using admin::v1::AdminService;
  admin::v1::DrainResponse response;
  return Call<AdminService>(&AdminService::Stub::Drain,
                            admin::v1::DrainRequest(), &response);
}

absl::StatusOr<admin::v1::LogLevel> Operator::SetLogLevel(
    admin::v1::LogLevel level) const {
  using admin::v1::AdminService;
  admin::v1::SetLogLevelRequest request;
  request.set_level(level);
  admin::v1::SetLogLevelResponse response;
  const absl::Status status =
      Call<AdminService>(&AdminService::Stub::SetLogLevel, request, &response);
  if (!status.ok()) return status;
  return response.previous();
}

}  // namespace piserve::client
