// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "prometheus/collectable.h"
#include "server/metrics_history.h"

class CivetServer;

namespace piserve::server {

// The HTTP listener: plain text, read only.
//
//   /metrics   Prometheus text format
//   /healthz   200 "ok" while requests are taken, else 503 and the reason
//   /          a page for people, made of the same metrics
//
// Anything else is 404. HEAD is GET without the body. A connection that sends
// no request is closed after 1 s, and 16 of them hold everybody else up that
// long: for a trusted network. Thread-safe.
class HttpServer {
 public:
  struct Options {
    std::string address = "127.0.0.1:9464";  // port 0 takes a free one
    std::vector<std::shared_ptr<prometheus::Collectable>> metrics;
    std::function<absl::Status()> availability;  // called from any thread
    absl::Duration history_interval = absl::Seconds(5);
  };

  // INVALID_ARGUMENT for an address that is none, UNAVAILABLE for one that
  // cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Create(Options options);

  ~HttpServer();  // waits for the requests under way

  int port() const { return port_; }

 private:
  class Handler;
  class Log;

  explicit HttpServer(Options options);

  const Options options_;
  MetricsHistory history_;
  std::unique_ptr<Handler> handler_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<CivetServer> server_;  // calls the two; goes first
  int port_ = 0;
};

}  // namespace piserve::server
