// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/rpc/admin_service.h"
#include "server/rpc/health_service.h"
#include "server/rpc/policy_service.h"
#include "server/rpc/server_control.h"

namespace grpc {
class Server;
}  // namespace grpc

namespace piserve::server::rpc {

// PEM texts.
struct TlsOptions {
  std::string certificate_chain;
  std::string private_key;
  std::string client_ca;  // set: clients must present a certificate of it
};

// Whether anybody is there at the other end of a silent connection.
struct Keepalive {
  absl::Duration time = absl::Seconds(20);     // of silence, then a ping
  absl::Duration timeout = absl::Seconds(10);  // without an answer: cut
  // How often a client may ping, also without a call; one that does so more
  // often is told to calm down and cut.
  absl::Duration client_pings = absl::Seconds(5);
};

enum class PlainText { kLoopbackOnly, kAnywhere };

// Addresses are "host:port"; port 0 takes a free one.
struct ListenerOptions {
  std::string public_address = "127.0.0.1:50051";
  std::string probe_address = "127.0.0.1:50052";
  std::string admin_address = "127.0.0.1:50053";
  std::optional<TlsOptions> tls;  // of the public listener
  PlainText plain_text = PlainText::kLoopbackOnly;
  int max_receive_bytes = 8 << 20;
  // What gRPC may hold for the public and the admin listener together, messages
  // above all that are under way and not parsed yet. Beyond it gRPC resets
  // streams, whose callers see RESOURCE_EXHAUSTED, until it holds less; it lags
  // behind a flood.
  std::size_t max_unparsed_bytes = std::size_t{576} << 20;
  int max_send_bytes = 1 << 20;
  int max_streams = 64;  // calls at a time on one connection
  int max_metadata_bytes = 8192;
  Keepalive keepalive;
};

// The three gRPC servers.
//
//   public  PolicyService, health; TLS where configured
//   probe   health, plain text: for load balancers and orchestrators
//   admin   loopback only: AdminService, channelz, health, and reflection,
//   which
//           describes PolicyService; so that what reflection finds can be
//           called there, PolicyService is served there too
//
// Health is NOT_SERVING for "" and "piserve.v1.PolicyService" until SetReady;
// "liveness" is SERVING while the process serves at all.
class Listeners {
 public:
  // Binds and serves. INVALID_ARGUMENT for an address that the rules above
  // refuse, UNAVAILABLE for one that cannot be bound, and for TLS material that
  // gRPC does not take. All of `backends` and `control` are borrowed and
  // outlive the listeners.
  static absl::StatusOr<std::unique_ptr<Listeners>> Create(
      const ListenerOptions& options, const Backends& backends,
      ServerControl& control);

  ~Listeners();  // Shutdown with no grace, unless that was done

  int public_port() const { return public_port_; }
  int probe_port() const { return probe_port_; }
  int admin_port() const { return admin_port_; }

  // Thread-safe.
  void SetReady(Serving serving);

  // Not ready from now on, and streams end when they are idle. Thread-safe;
  // does not wait.
  void Drain();

  // Drains, waits at most `grace` for the calls to end, then cancels what is
  // left and stops. Blocks until every call has ended, so Inference must still
  // be there to answer. Call once, from a thread that is not gRPC's.
  void Shutdown(absl::Duration grace);

  // Open connections to the public listener. Walks gRPC's own list: for a
  // scrape, not for every request.
  int Connections() const;

 private:
  Listeners(const Backends& backends, ServerControl& control);

  absl::Status Build(const ListenerOptions& options);

  // Two objects of each, because a gRPC service belongs to one server.
  PolicyService public_policies_;
  PolicyService admin_policies_;
  HealthService public_health_;
  HealthService probe_health_;
  HealthService admin_health_;
  AdminService admin_;
  std::unique_ptr<grpc::Server> public_server_;
  std::unique_ptr<grpc::Server> probe_server_;
  std::unique_ptr<grpc::Server> admin_server_;
  std::int64_t public_server_id_ = 0;  // channelz's
  int public_port_ = 0;
  int probe_port_ = 0;
  int admin_port_ = 0;
};

}  // namespace piserve::server::rpc
