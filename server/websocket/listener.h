// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/websocket/handshake.h"

namespace piserve::server::websocket {

class Hub;

struct ListenerOptions {
  std::string address = "127.0.0.1:8000";  // port 0 takes a free one
  std::size_t max_frame_bytes = 8 << 20;
  int max_connections = 64;
  // Requests of one connection; what it sends beyond waits unread.
  int max_in_flight = 4;
  absl::Duration handshake_timeout = absl::Seconds(10);
  // A connection is pinged after half of it and closed after all of it without
  // a byte from the client.
  absl::Duration idle_timeout = absl::Seconds(60);
};

// openpi's websocket wire, plain text, for the clients people already have
// (openpi_client.WebsocketClientPolicy):
//
//   GET /NAME, upgraded   a connection for that policy; GET / for the only one
//   first frame           msgpack of the policy's metadata
//   then, per request     a binary frame with the observation in; out, in the
//                         order of the requests, a binary frame with
//                         {actions, policy_timing, server_timing}, or a text
//                         frame with what was wrong
//   GET /healthz          200 "OK\n" while requests are taken, else 503
//
// Unlike openpi's server it keeps the connection after an error, answers pings
// during inference and serves connections side by side. A frame over the limit
// closes its connection (1009) and is not seen by the observer. A client that
// leaves cancels what it asked for.
//
// No thread of the front ever waits for an answer.
class Listener {
 public:
  // Binds, so that the port is known and taken; connections are refused until
  // Listen, which is what openpi's client waits for. INVALID_ARGUMENT for an
  // address that is none, UNAVAILABLE for one that cannot be bound.
  static absl::StatusOr<std::unique_ptr<Listener>> Create(
      const ListenerOptions& options, const Backends& backends);

  ~Listener();  // Shutdown with no grace, unless that was done

  // Call once. UNAVAILABLE if the port is taken after all.
  absl::Status Listen();

  int port() const { return port_; }
  int connections() const;

  // Refuses connections, and closes those that are there (1001) as soon as
  // nothing is outstanding on them. That new requests are refused is the
  // directory's word. Thread-safe; does not wait.
  void Drain();

  // Drains, waits at most `grace` for the connections to close, then cuts what
  // is left. Blocks until every request has its answer, so Inference must still
  // be there. Call once.
  void Shutdown(absl::Duration grace);

 private:
  class Acceptor;

  explicit Listener(std::shared_ptr<Hub> hub);

  // Shared with answers under way: a thread that gives one may still be inside
  // when the listener has gone.
  std::shared_ptr<Hub> hub_;
  std::shared_ptr<Acceptor> acceptor_;
  int port_ = 0;
  std::vector<std::thread> threads_;
};

}  // namespace piserve::server::websocket
