// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"
#include "piserve/admin/v1/admin.pb.h"

namespace piserve::client {

// What an operator asks a server; `timeout` is a call's budget.
class Operator {
 public:
  Operator(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout)
      : channel_(std::move(channel)), timeout_(timeout) {}

  // Of a service, or, where empty, of the whole server: SERVING, NOT_SERVING.
  absl::StatusOr<std::string> Health(const std::string& service) const;

  // The admin port's. SetLogLevel returns the one before.
  absl::Status Drain() const;
  absl::StatusOr<admin::v1::LogLevel> SetLogLevel(
      admin::v1::LogLevel level) const;

 private:
  template <typename Service, typename Method, typename Request,
            typename Response>
  absl::Status Call(Method method, const Request& request,
                    Response* response) const;

  std::shared_ptr<grpc::Channel> channel_;
  absl::Duration timeout_;
};

// As debug, info, warn or error; nothing for another word.
std::optional<admin::v1::LogLevel> ParseLogLevel(const std::string& name);
std::string LogLevelName(admin::v1::LogLevel level);

}  // namespace piserve::client
