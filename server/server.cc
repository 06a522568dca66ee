// SPDX-License-Identifier: Apache-2.0
#include "server/server.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <future>
#include <iterator>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "batching/clock.h"
#include "server/address.h"
#include "server/process_metrics.h"
#include "server/recording/recording_inference.h"
#include "server/version.h"

namespace piserve::server {
namespace {

constexpr absl::Duration kWatchInterval = absl::Milliseconds(20);
constexpr absl::Duration kFaultAnswers = absl::Seconds(1);
constexpr absl::Duration kFaultShutdown = absl::Seconds(1);
constexpr std::chrono::seconds kFaultPatience{2};
// Of recordings: beside a lost device the process ends without destroying
// anything.
constexpr absl::Duration kLastRecords = absl::Seconds(1);
// That gRPC may hold beside a full queue's worth of messages under way.
constexpr std::size_t kUnparsedSlack = std::size_t{64} << 20;
// Of calls whose answer is given and not yet written.
constexpr absl::Duration kLastWrites = absl::Seconds(2);
// Where the grace has run out: what waited has just been answered.
constexpr absl::Duration kLeastLastWrites = absl::Milliseconds(200);

absl::Time Now() { return batching::Clock::Real().Now(); }

std::vector<std::string> NamesOf(const Config& config) {
  std::vector<std::string> names;
  for (const PolicyEntry& entry : config.policies) names.push_back(entry.name);
  return names;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(absl::StrCat("tls: cannot read ", path));
  }
  return std::string(std::istreambuf_iterator<char>(file), {});
}

absl::StatusOr<rpc::TlsOptions> ReadTls(const TlsConfig& config) {
  rpc::TlsOptions tls;
  const std::pair<const std::string&, std::string&> files[] = {
      {config.certificate, tls.certificate_chain},
      {config.private_key, tls.private_key},
      {config.client_ca, tls.client_ca}};
  for (const auto& [path, text] : files) {
    if (path.empty()) continue;
    absl::StatusOr<std::string> read = ReadFile(path);
    if (!read.ok()) return read.status();
    text = *std::move(read);
  }
  return tls;
}

absl::StatusOr<rpc::ListenerOptions> ListenerOptionsOf(const Config& config) {
  rpc::ListenerOptions options;
  options.public_address = config.listeners.grpc;
  options.probe_address = config.listeners.probe;
  options.admin_address = config.listeners.admin;
  options.plain_text = config.insecure == Insecure::kAllowed
                           ? rpc::PlainText::kAnywhere
                           : rpc::PlainText::kLoopbackOnly;
  options.max_receive_bytes = config.limits.receive_bytes;
  options.max_unparsed_bytes = config.limits.bytes + kUnparsedSlack;
  if (config.tls.has_value()) {
    auto tls = ReadTls(*config.tls);
    if (!tls.ok()) return tls.status();
    options.tls = *std::move(tls);
  }
  return options;
}

absl::StatusOr<rpc::Authenticator> MakeAuthenticator(const Config& config) {
  std::vector<rpc::ApiKey> keys;
  for (const ApiKeyConfig& key : config.api_keys) {
    keys.push_back({key.identity, key.key_sha256, key.policies});
  }
  return rpc::Authenticator::Create(keys);
}

ModelFacts FactsOf(const HostedPolicy& policy) {
  const Capabilities& capabilities = policy.policy->capabilities();
  return {.policy = policy.name,
          .policy_config = policy.config.name,
          .model_digest = policy.model_digest,
          .preprocessing_checksum = policy.pipeline->preprocessing_checksum(),
          .backend = capabilities.backend,
          .precision = capabilities.precision,
          .device = policy.device,
          .kind = policy.on_gpu() ? DeviceKind::kGpu : DeviceKind::kCpu,
          .load_time = policy.load_time};
}

LogLevel FromRpc(rpc::LogLevel level) {
  switch (level) {
    case rpc::LogLevel::kDebug:
      return LogLevel::kDebug;
    case rpc::LogLevel::kInfo:
      return LogLevel::kInfo;
    case rpc::LogLevel::kWarn:
      return LogLevel::kWarn;
    case rpc::LogLevel::kError:
      break;
  }
  return LogLevel::kError;
}

rpc::LogLevel ToRpc(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return rpc::LogLevel::kDebug;
    case LogLevel::kInfo:
      return rpc::LogLevel::kInfo;
    case LogLevel::kWarn:
      return rpc::LogLevel::kWarn;
    case LogLevel::kError:
      break;
  }
  return rpc::LogLevel::kError;
}

// "127.0.0.1:50051" of the address that was asked for and the port it became.
std::string Bound(const std::string& address, int port) {
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Create(Options options) {
  if (absl::Status s = CheckListeners(options.config); !s.ok()) return s;
  std::unique_ptr<Server> server(new Server(std::move(options)));
  if (absl::Status s = server->OpenRecords(); !s.ok()) return s;
  if (absl::Status s = server->Bind(); !s.ok()) return s;
  if (absl::Status s = server->BindWebsocket(); !s.ok()) return s;
  if (absl::Status s = server->BindHttp(); !s.ok()) return s;
  if (absl::Status s = server->WritePortFile(); !s.ok()) return s;
  return server;
}

Server::Server(Options options)
    : options_(std::move(options)),
      started_(Now()),
      log_(options_.config.logging, options_.log),
      request_log_(log_, metrics_),
      host_(NamesOf(options_.config)) {}

Server::~Server() = default;

absl::Status Server::OpenRecords() {
  const RecordConfig& record = options_.config.record;
  if (record.folder.empty()) return absl::OkStatus();
  auto ring = RecordRing::Create(
      {.folder = record.folder, .max_bytes = record.max_bytes});
  if (!ring.ok()) return ring.status();
  records_ = *std::move(ring);
  recorder_ = std::make_unique<RecordingInference>(host_, *records_);
  return absl::OkStatus();
}

absl::Status Server::Bind() {
  absl::StatusOr<rpc::Authenticator> authenticator =
      MakeAuthenticator(options_.config);
  if (!authenticator.ok()) return authenticator.status();
  authenticator_ = *std::move(authenticator);
  const auto listeners = ListenerOptionsOf(options_.config);
  if (!listeners.ok()) return listeners.status();
  auto bound = rpc::Listeners::Create(
      *listeners,
      rpc::Backends{inference(), host_, metrics_, *authenticator_,
                    batching::Clock::Real()},
      *this);
  if (!bound.ok()) return bound.status();
  listeners_ = *std::move(bound);
  return absl::OkStatus();
}

absl::Status Server::BindWebsocket() {
  const Config& config = options_.config;
  if (config.listeners.websocket.empty()) return absl::OkStatus();
  websocket::ListenerOptions options;
  options.address = config.listeners.websocket;
  options.max_frame_bytes = config.limits.receive_bytes;
  options.max_connections = config.limits.websocket_connections;
  options.max_in_flight = config.limits.websocket_in_flight;
  auto bound = websocket::Listener::Create(
      options,
      {inference(), host_, metrics_, *authenticator_, batching::Clock::Real()});
  if (!bound.ok()) return bound.status();
  websocket_ = *std::move(bound);
  return absl::OkStatus();
}

absl::Status Server::BindHttp() {
  auto http = HttpServer::Create(
      {.address = options_.config.listeners.http,
       .metrics = {metrics_.registry(),
                   std::make_shared<PolledGauge>(
                       "piserve_connections",
                       "Open connections to the public listener.",
                       [this] { return listeners_->Connections(); }),
                   std::make_shared<PolledGauge>(
                       "piserve_websocket_connections",
                       "Open connections to the websocket listener.",
                       [this] {
                         return websocket_ ? websocket_->connections() : 0;
                       }),
                   std::make_shared<PolledGauge>(
                       "piserve_recordings_dropped",
                       "Requests since the start that were not recorded.",
                       [this] { return records_ ? records_->dropped() : 0; }),
                   std::make_shared<ProcessMetrics>()},
       .availability = [this] { return host_.Availability(); }});
  if (!http.ok()) return http.status();
  http_ = *std::move(http);
  return absl::OkStatus();
}

absl::Status Server::WritePortFile() const {
  const std::string& path = options_.port_file;
  if (path.empty()) return absl::OkStatus();
  // Whoever waits for the file must never see half of it.
  const std::string part = path + ".part";
  std::ofstream file(part);
  file << "public " << grpc_port() << "\nprobe " << probe_port() << "\nadmin "
       << admin_port() << "\nhttp " << http_port() << "\n";
  if (websocket_ != nullptr) file << "websocket " << websocket_port() << "\n";
  file.close();
  if (file.fail() || std::rename(part.c_str(), path.c_str()) != 0) {
    return absl::NotFoundError(absl::StrCat("port_file: cannot write ", path));
  }
  return absl::OkStatus();
}

absl::StatusOr<Exit> Server::Run() {
  log_.Log(LogLevel::kInfo, "listening",
           {{"version", kVersion}, {"grpc_port", std::int64_t{grpc_port()}}});
  if (absl::Status s = LoadPolicies(); !s.ok()) return s;
  if (!drain_wanted()) {
    if (absl::Status s = Open(); !s.ok()) return s;
  }
  const bool healthy =
      Watch(absl::InfiniteFuture(), [this] { return drain_wanted(); });
  const Exit exit = healthy ? FinishAndStop() : StopFaulty();
  if (records_ != nullptr) records_->Flush(kLastRecords);
  return exit;
}

absl::Status Server::LoadPolicies() {
  for (const PolicyEntry& entry : options_.config.policies) {
    if (drain_wanted()) return absl::OkStatus();
    absl::StatusOr<HostedPolicy> policy = options_.factory(entry);
    if (!policy.ok()) return policy.status();
    log_.Log(LogLevel::kInfo, "policy loaded",
             {{"policy", policy->name},
              {"policy_config", policy->config.name},
              {"backend", policy->policy->capabilities().backend},
              {"precision", policy->policy->capabilities().precision},
              {"model_digest", policy->model_digest},
              {"seconds", absl::ToDoubleSeconds(policy->load_time)}});
    AddMetricsOf(*policy);
    host_.Add(*std::move(policy));
  }
  return absl::OkStatus();
}

void Server::AddMetricsOf(const HostedPolicy& policy) {
  metrics_.AddPolicy(FactsOf(policy));
  const std::optional<DeviceFacts> facts = policy.policy->device_facts();
  if (!facts.has_value()) return;
  const std::string& device = policy.device;
  metrics_.AddGpu(device, facts->memory, facts->graphs);
  if (facts->energy == nullptr || energy_.contains(device)) return;
  energy_[device] = std::make_unique<EnergySampler>(EnergySampler::Options{
      .energy = facts->energy, .used = [this, device](double joules) {
        metrics_.AddGpuEnergy(device, joules);
      }});
}

absl::Status Server::Open() {
  const Config& config = options_.config;
  // Not after: a signal that comes while loading ends the process at once, and
  // a request may be accepted as soon as the host is open.
  {
    batching::MutexLock lock(mutex_);
    loading_ = false;
  }
  host_.Open({.limits = config.limits,
              .workers = config.decode_workers,
              .watchdog = config.watchdog,
              .batching_observer = &metrics_,
              .observer = &request_log_});
  // Not before: openpi's client waits where it is refused a connection, and
  // gives up where it is refused a request.
  if (websocket_ != nullptr) {
    if (absl::Status s = websocket_->Listen(); !s.ok()) return s;
  }
  metrics_.SetWarmup(Now() - started_);
  metrics_.SetState(ServerState::kReady);
  listeners_->SetReady(rpc::Serving::kYes);
  const std::string line = ReadyLine();
  log_.Log(LogLevel::kInfo, line);
  if (options_.ready != nullptr) options_.ready(line);
  return absl::OkStatus();
}

std::string Server::ReadyLine() const {
  const ListenerConfig& at = options_.config.listeners;
  std::string line =
      absl::StrCat("piserve ready grpc=", Bound(at.grpc, grpc_port()),
                   " http=", Bound(at.http, http_port()),
                   " admin=", Bound(at.admin, admin_port()),
                   " probe=", Bound(at.probe, probe_port()));
  if (websocket_ != nullptr) {
    absl::StrAppend(&line,
                    " websocket=", Bound(at.websocket, websocket_port()));
  }
  return line;
}

bool Server::Watch(absl::Time until, const std::function<bool()>& done) {
  while (!done() && Now() < until) {
    if (!host_.CheckFaults()) return false;
    batching::MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, std::min(kWatchInterval, until - Now()));
  }
  return true;
}

Exit Server::FinishAndStop() {
  const absl::Time until = Now() + options_.config.drain_grace;
  log_.Log(LogLevel::kInfo, "draining",
           {{"in_flight", std::int64_t{host_.in_flight()}}});
  metrics_.SetState(ServerState::kDraining);
  listeners_->SetReady(rpc::Serving::kNo);
  host_.Drain(until);
  listeners_->Drain();
  if (websocket_ != nullptr) websocket_->Drain();
  // At `until` all that waits is answered, and what still runs ends soon or is
  // found to hang.
  if (!Watch(absl::InfiniteFuture(),
             [this] { return host_.in_flight() == 0; })) {
    return StopFaulty();
  }
  StopListeners(std::clamp(until - Now(), kLeastLastWrites, kLastWrites));
  log_.Log(LogLevel::kInfo, "drained");
  return Exit::kDrained;
}

void Server::StopListeners(absl::Duration grace) {
  const absl::Time until = Now() + grace;
  // Half of it: a client that does not answer the close must not take it all.
  if (websocket_ != nullptr) websocket_->Shutdown(grace / 2);
  listeners_->Shutdown(std::max(until - Now(), absl::ZeroDuration()));
}

Exit Server::StopFaulty() {
  metrics_.SetState(ServerState::kFaulty);
  listeners_->SetReady(rpc::Serving::kNo);
  log_.Log(LogLevel::kError, "no healthy device is left");
  const absl::Time until = Now() + kFaultAnswers;
  while (host_.in_flight() > 0 && Now() < until) {
    host_.CheckFaults();
    batching::MutexLock lock(mutex_);
    changed_.WaitFor(mutex_, kWatchInterval);
  }
  // Nothing may keep the process from ending, not even an answer that never
  // comes.
  std::packaged_task<void()> shutdown(
      [this] { StopListeners(kFaultShutdown); });
  const std::future<void> stopped = shutdown.get_future();
  std::thread(std::move(shutdown)).detach();
  stopped.wait_for(kFaultPatience);
  return Exit::kDeviceFault;
}

void Server::Drain() {
  batching::MutexLock lock(mutex_);
  drain_wanted_ = true;
  changed_.NotifyAll();
}

rpc::LogLevel Server::SetLogLevel(rpc::LogLevel level) {
  return ToRpc(log_.SetLevel(FromRpc(level)));
}

bool Server::drain_wanted() const {
  batching::MutexLock lock(mutex_);
  return drain_wanted_;
}

bool Server::loading() const {
  batching::MutexLock lock(mutex_);
  return loading_;
}

}  // namespace piserve::server
