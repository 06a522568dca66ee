// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/admin_service.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "server/rpc/status_codec.h"

namespace piserve::server::rpc {
namespace {

std::optional<LogLevel> FromWire(admin::v1::LogLevel level) {
  switch (level) {
    case admin::v1::LOG_LEVEL_DEBUG:
      return LogLevel::kDebug;
    case admin::v1::LOG_LEVEL_INFO:
      return LogLevel::kInfo;
    case admin::v1::LOG_LEVEL_WARN:
      return LogLevel::kWarn;
    case admin::v1::LOG_LEVEL_ERROR:
      return LogLevel::kError;
    default:
      return std::nullopt;
  }
}

admin::v1::LogLevel ToWire(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return admin::v1::LOG_LEVEL_DEBUG;
    case LogLevel::kInfo:
      return admin::v1::LOG_LEVEL_INFO;
    case LogLevel::kWarn:
      return admin::v1::LOG_LEVEL_WARN;
    case LogLevel::kError:
      return admin::v1::LOG_LEVEL_ERROR;
  }
  return admin::v1::LOG_LEVEL_UNSPECIFIED;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::Drain(
    grpc::CallbackServerContext* context, const admin::v1::DrainRequest*,
    admin::v1::DrainResponse*) {
  control_.Drain();
  auto* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::SetLogLevel(
    grpc::CallbackServerContext* context,
    const admin::v1::SetLogLevelRequest* request,
    admin::v1::SetLogLevelResponse* response) {
  auto* reactor = context->DefaultReactor();
  const auto level = FromWire(request->level());
  if (!level.has_value()) {
    reactor->Finish(ToGrpcStatus(
        InvalidField("level", "UNKNOWN_ENUM_VALUE",
                     absl::StrCat("got ", static_cast<int>(request->level()),
                                  ", want DEBUG, INFO, WARN or ERROR"))));
    return reactor;
  }
  response->set_previous(ToWire(control_.SetLogLevel(*level)));
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

}  // namespace piserve::server::rpc
