// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <unordered_set>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "batching/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/support/server_callback.h"

namespace piserve::server::rpc {

class HealthWatch;

enum class Serving { kNo, kYes };

// grpc.health.v1.Health. gRPC's own one is switched on for a whole process, has
// no descriptor for reflection, and cannot be a server's only service.
//
// Thread-safe. Register it with one server; must outlive that server.
class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  // Tells those who watch `service`, if it changed.
  void Set(absl::string_view service, Serving serving);

  // Ends every watch, after a last NOT_SERVING; later ones end likewise.
  // Watches never end by themselves and would hold up the server's shutdown.
  void EndWatches();

  // NOT_FOUND for a service that was never Set, as the protocol says.
  grpc::ServerUnaryReactor* Check(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request,
      grpc::health::v1::HealthCheckResponse* response) override;

  // SERVICE_UNKNOWN for such a service, until it is Set; INVALID_ARGUMENT for a
  // name of more than 256 bytes, for it is kept as long as the watch.
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* context,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  friend class HealthWatch;
  using Status = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // The present status, and updates from now on.
  void Register(HealthWatch* watch);
  void Unregister(HealthWatch* watch);
  Status StatusOf(const std::string& service) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  batching::Mutex mutex_;
  std::map<std::string, Status> services_ ABSL_GUARDED_BY(mutex_);
  std::unordered_set<HealthWatch*> watches_ ABSL_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace piserve::server::rpc
