// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/channel.h"

namespace piserve::client {

// What an operator asks a server; `timeout` is a call's budget.
class Operator {
 public:
  Operator(std::shared_ptr<grpc::Channel> channel, absl::Duration timeout)
      : channel_(std::move(channel)), timeout_(timeout) {}

  // Of a service, or, where empty, of the whole server: SERVING, NOT_SERVING.
  absl::StatusOr<std::string> Health(const std::string& service) const;

  // The admin port's. A level is debug, info, warn or error; returns the one
  // before.
  absl::Status Drain() const;
  absl::StatusOr<std::string> SetLogLevel(const std::string& level) const;

 private:
  template <typename Service, typename Method, typename Request,
            typename Response>
  absl::Status Call(Method method, const Request& request,
                    Response* response) const;

  std::shared_ptr<grpc::Channel> channel_;
  absl::Duration timeout_;
};

// Whether SetLogLevel knows it.
bool IsLogLevel(const std::string& level);

}  // namespace piserve::client
