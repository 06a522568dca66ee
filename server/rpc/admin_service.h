// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "grpcpp/support/server_callback.h"
#include "piserve/admin/v1/admin.grpc.pb.h"
#include "server/rpc/server_control.h"

namespace piserve::server::rpc {

// piserve.admin.v1.AdminService. Register it with the admin server only.
class AdminService final : public admin::v1::AdminService::CallbackService {
 public:
  // `control` is borrowed and outlives the service.
  explicit AdminService(ServerControl& control) : control_(control) {}

  grpc::ServerUnaryReactor* Drain(grpc::CallbackServerContext* context,
                                  const admin::v1::DrainRequest* request,
                                  admin::v1::DrainResponse* response) override;

  // INVALID_ARGUMENT for a level that is none.
  grpc::ServerUnaryReactor* SetLogLevel(
      grpc::CallbackServerContext* context,
      const admin::v1::SetLogLevelRequest* request,
      admin::v1::SetLogLevelResponse* response) override;

 private:
  ServerControl& control_;
};

}  // namespace piserve::server::rpc
