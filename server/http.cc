// SPDX-License-Identifier: Apache-2.0
#include "server/http.h"

#include <CivetServer.h>

#include <atomic>
#include <chrono>
#include <string_view>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "batching/mutex.h"
#include "model/error.h"
#include "prometheus/text_serializer.h"
#include "server/address.h"
#include "server/status_page.h"

namespace piserve::server {
namespace {

std::vector<prometheus::MetricFamily> CollectAll(
    const HttpServer::Options& options) {
  std::vector<prometheus::MetricFamily> all;
  for (const auto& source : options.metrics) {
    for (auto& family : source->Collect()) all.push_back(std::move(family));
  }
  return all;
}

void Respond(mg_connection* connection, int status, const char* type,
             std::string_view body) {
  const char* text = status == 200   ? "OK"
                     : status == 404 ? "Not Found"
                                     : "Service Unavailable";
  mg_printf(connection,
            "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n"
            "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
            "Connection: close\r\n\r\n",
            status, text, type, body.size());
  const mg_request_info* request = mg_get_request_info(connection);
  if (std::string_view(request->request_method) == "HEAD") return;
  mg_write(connection, body.data(), body.size());
}

// Most of CivetWeb is switched off by giving it no document root. A connection
// takes a thread until its request has come, or has not come in time: there are
// more threads than requests for the sake of those that say nothing.
std::vector<std::string> ServerOptions(const std::string& address) {
  return {"listening_ports",
          address,
          "num_threads",
          "16",
          "request_timeout_ms",
          "1000",
          "enable_directory_listing",
          "no"};
}

// Connects to a port of this machine and says nothing.
void Knock(int port) {
  char error[64];
  mg_connection* connection =
      mg_connect_client("127.0.0.1", port, 0, error, sizeof error);
  if (connection != nullptr) mg_close_connection(connection);
}

}  // namespace

// CivetWeb tells nobody else why it did not start.
class HttpServer::Log {
 public:
  Log() { callbacks_.log_message = &Log::Add; }

  const CivetCallbacks* callbacks() const { return &callbacks_; }
  std::string Get() const {
    batching::MutexLock lock(mutex_);
    return text_;
  }

 private:
  static constexpr std::size_t kLongest = 300;

  static int Add(const mg_connection* connection, const char* message) {
    const auto* server =
        static_cast<CivetServer*>(mg_get_user_data(mg_get_context(connection)));
    auto* log = static_cast<Log*>(const_cast<void*>(server->getUserContext()));
    batching::MutexLock lock(log->mutex_);
    if (log->text_.size() < kLongest) {
      absl::StrAppend(&log->text_, log->text_.empty() ? "" : "; ", message);
    }
    return 1;  // handled
  }

  CivetCallbacks callbacks_;
  mutable batching::Mutex mutex_;
  std::string text_ ABSL_GUARDED_BY(mutex_);  // the first messages
};

class HttpServer::Handler : public CivetHandler {
 public:
  Handler(const Options& options, MetricsHistory& history)
      : options_(options), history_(history) {}

  bool handleHead(CivetServer* server, mg_connection* connection) override {
    return handleGet(server, connection);
  }

  bool handleGet(CivetServer*, mg_connection* connection) override {
    const std::string_view path = mg_get_request_info(connection)->local_uri;
    constexpr char kText[] = "text/plain; charset=utf-8";
    if (path == "/metrics") {
      Respond(connection, 200, "text/plain; version=0.0.4; charset=utf-8",
              prometheus::TextSerializer().Serialize(CollectAll(options_)));
    } else if (path == "/healthz") {
      const absl::Status status = options_.availability();
      const std::string reason = ReasonOf(status).value_or("UNAVAILABLE");
      Respond(connection, status.ok() ? 200 : 503, kText,
              status.ok() ? "ok\n" : reason + "\n");
    } else if (path == "/") {
      Respond(connection, 200, "text/html; charset=utf-8",
              StatusPage(history_.Get(), options_.availability()));
    } else {
      Respond(connection, 404, kText, "not found\n");
    }
    return true;
  }

 private:
  const Options& options_;
  MetricsHistory& history_;
};

HttpServer::HttpServer(Options options)
    : options_(std::move(options)),
      history_({.collect = [this] { return CollectAll(options_); },
                .interval = options_.history_interval}),
      handler_(std::make_unique<Handler>(options_, history_)),
      log_(std::make_unique<Log>()) {}

// CivetWeb looks whether it should stop when somebody connects, and else every
// 2 s only.
HttpServer::~HttpServer() {
  std::atomic<bool> stopped = false;
  std::thread stop([&] {
    server_.reset();
    stopped = true;
  });
  while (!stopped) {
    Knock(port_);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  stop.join();
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Create(
    Options options) {
  const absl::StatusOr<HostPort> address = ParseAddress(options.address);
  if (!address.ok()) return address.status();
  std::string where = options.address;
  if (address->host == "localhost") {
    where = absl::StrCat("127.0.0.1:", address->port);
  }
  std::unique_ptr<HttpServer> http(new HttpServer(std::move(options)));
  try {
    http->server_ = std::make_unique<CivetServer>(
        ServerOptions(where), http->log_->callbacks(), http->log_.get());
  } catch (const CivetException&) {
    return absl::UnavailableError(absl::StrCat("http: cannot listen on ", where,
                                               ": ", http->log_->Get()));
  }
  http->server_->addHandler("/", http->handler_.get());
  http->port_ = http->server_->getListeningPorts().at(0);
  return http;
}

}  // namespace piserve::server
