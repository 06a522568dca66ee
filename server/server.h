// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/mutex.h"
#include "server/config.h"
#include "server/energy_sampler.h"
#include "server/hosted_policy.h"
#include "server/http.h"
#include "server/logging.h"
#include "server/metrics.h"
#include "server/policy_host.h"
#include "server/recording/record_ring.h"
#include "server/request_log.h"
#include "server/rpc/auth.h"
#include "server/rpc/listeners.h"
#include "server/rpc/server_control.h"
#include "server/websocket/listener.h"

namespace piserve::server {

// Makes a policy of its entry: LoadPolicy, or a test's own.
using PolicyFactory =
    std::function<absl::StatusOr<HostedPolicy>(const PolicyEntry&)>;

// How a run ended; the process's exit code.
enum class Exit { kDrained = 0, kDeviceFault = 2 };

// The whole server: listeners, policies, metrics, log.
//
//   Create   binds every listener: alive, not ready
//   Run      loads the policies, is ready, serves, and drains when told to
//
// While it runs, a watchdog looks at the devices every 20 ms. When no healthy
// one is left it is not ready at once, answers what it holds with UNAVAILABLE,
// and Run returns kDeviceFault within 4 s.
class Server : public rpc::ServerControl {
 public:
  struct Options {
    Config config;
    PolicyFactory factory = LoadPolicy;
    // Written once all listeners are bound: a line "name port" each for public,
    // probe, admin, http and, where that is on, websocket. Empty: nowhere.
    std::string port_file;
    // Told once, when requests are taken: "piserve ready grpc=HOST:PORT ...".
    std::function<void(const std::string&)> ready;
    std::ostream* log = nullptr;  // null: standard error
  };

  // One line that says what is wrong: INVALID_ARGUMENT for the configuration,
  // NOT_FOUND for a file that it names, UNAVAILABLE for an address that cannot
  // be bound.
  static absl::StatusOr<std::unique_ptr<Server>> Create(Options options);

  // Where lost_device() it may wait for one that hangs: end the process
  // instead.
  ~Server() override;

  // Blocks; call once. An error if a policy cannot be loaded.
  absl::StatusOr<Exit> Run();

  // Makes Run drain and return, as SIGTERM does. Thread-safe, repeatable.
  void Drain() override;
  rpc::LogLevel SetLogLevel(rpc::LogLevel level) override;

  // Nothing has been accepted yet, and policies are being loaded.
  bool loading() const;

  // One at least has failed or hangs.
  bool lost_device() const { return host_.lost_device(); }

  int grpc_port() const { return listeners_->public_port(); }
  int probe_port() const { return listeners_->probe_port(); }
  int admin_port() const { return listeners_->admin_port(); }
  int http_port() const { return http_->port(); }
  // 0: off.
  int websocket_port() const {
    return websocket_ != nullptr ? websocket_->port() : 0;
  }

 private:
  explicit Server(Options options);

  absl::Status OpenRecords();
  Inference& inference() { return recorder_ ? *recorder_ : host_; }
  absl::Status Bind();
  absl::Status BindWebsocket();
  absl::Status BindHttp();
  absl::Status WritePortFile() const;
  absl::Status LoadPolicies();
  void AddMetricsOf(const HostedPolicy& policy);
  absl::Status Open();
  std::string ReadyLine() const;
  void StopListeners(absl::Duration grace);
  Exit FinishAndStop();
  Exit StopFaulty();

  // Watches the devices until `done` or `until`; false if none is left.
  bool Watch(absl::Time until, const std::function<bool()>& done);
  bool drain_wanted() const;

  const Options options_;
  const absl::Time started_;
  Logger log_;
  Metrics metrics_;
  // By device; uses metrics_.
  std::map<std::string, std::unique_ptr<EnergySampler>> energy_;
  RequestLog request_log_;
  std::unique_ptr<RecordRing> records_;  // null: off
  std::unique_ptr<Inference> recorder_;  // in front of host_; likewise
  PolicyHost host_;
  std::optional<rpc::Authenticator> authenticator_;
  std::unique_ptr<rpc::Listeners> listeners_;       // uses all above
  std::unique_ptr<websocket::Listener> websocket_;  // likewise; null: off
  std::unique_ptr<HttpServer> http_;

  mutable batching::Mutex mutex_;
  batching::CondVar changed_;
  bool drain_wanted_ ABSL_GUARDED_BY(mutex_) = false;
  bool loading_ ABSL_GUARDED_BY(mutex_) = true;
};

}  // namespace piserve::server
