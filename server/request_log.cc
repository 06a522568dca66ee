// SPDX-License-Identifier: Apache-2.0
#include "server/request_log.h"

#include <string>

#include "model/error.h"

namespace piserve::server {
namespace {

LogLevel LevelOf(const absl::Status& status) {
  if (status.ok()) return LogLevel::kDebug;
  return absl::IsInternal(status) ? LogLevel::kError : LogLevel::kInfo;
}

}  // namespace

void RequestLog::OnAnswer(const Answer& answer) {
  const LogLevel level = LevelOf(answer.status);
  if (log_.Wants(level)) {
    const InferenceRequest& request = answer.request;
    log_.Log(level, "request",
             {{"request_id", request.request_id},
              {"robot_id", request.robot_id},
              {"episode_id", request.episode_id},
              {"traceparent", request.traceparent},
              {"identity", request.identity},
              {"peer", request.peer},
              {"policy", request.policy},
              {"code", absl::StatusCodeToString(answer.status.code())},
              {"reason", ReasonOf(answer.status).value_or("")},
              {"error", answer.status.message()},
              {"total_ms", absl::ToDoubleMilliseconds(answer.total)}});
  }
  next_.OnAnswer(answer);
}

void RequestLog::OnFault(std::string_view device, FaultKind kind) {
  log_.Log(LogLevel::kError, "device taken out",
           {{"device", absl::string_view(device.data(), device.size())},
            {"kind", kind == FaultKind::kHang ? "hang" : "device"}});
  next_.OnFault(device, kind);
}

}  // namespace piserve::server
