// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/listeners.h"

#include <chrono>
#include <cstddef>
#include <initializer_list>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "grpc/compression.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "model/error.h"
#include "server/address.h"
#include "server/rpc/connections.h"

namespace piserve::server::rpc {
namespace {

constexpr char kServiceName[] = "piserve.v1.PolicyService";
constexpr char kLiveness[] = "liveness";

// Of the probe listener: a health check is a service's name.
constexpr int kProbeMessage = 4096;
constexpr std::size_t kProbeMemory = std::size_t{16} << 20;

// How long a server waits for calls that have nothing to say any more (health
// watches that just ended, reflection streams) before it cancels them.
constexpr auto kLastCalls = std::chrono::milliseconds(200);

// gRPC adds the services of its plugins to every server of a process once the
// plugins are linked (reflection) or initialised (channelz). This says which
// servers get them, whatever the order they are built in.
enum class Plugins { kNone, kAll };

class PluginOption final : public grpc::ServerBuilderOption {
 public:
  explicit PluginOption(Plugins plugins) : plugins_(plugins) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    if (plugins_ == Plugins::kNone) plugins->clear();
  }

 private:
  const Plugins plugins_;
};

void InitPluginsOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::channelz::experimental::InitChannelzService();
  });
}

void SetKeepalive(const Keepalive& keepalive, grpc::ServerBuilder& builder) {
  const auto set = [&](const char* argument, absl::Duration duration) {
    builder.AddChannelArgument(
        argument, static_cast<int>(absl::ToInt64Milliseconds(duration)));
  };
  set(GRPC_ARG_KEEPALIVE_TIME_MS, keepalive.time);
  set(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, keepalive.timeout);
  set(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
      keepalive.client_pings);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
}

void SetLimits(const ListenerOptions& options, grpc::ServerBuilder& builder) {
  builder.SetMaxSendMessageSize(options.max_send_bytes);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                             options.max_streams);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE,
                             options.max_metadata_bytes);
  SetKeepalive(options.keepalive, builder);
  // A port that another process has is an error, not a port to share.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 1);
  // No compression either way: cameras' images do not shrink, and a small
  // message must not become a large one.
  builder.SetDefaultCompressionAlgorithm(GRPC_COMPRESS_NONE);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
}

std::shared_ptr<grpc::ServerCredentials> Credentials(
    const std::optional<TlsOptions>& tls) {
  if (!tls.has_value()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      tls->client_ca.empty()
          ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
          : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = tls->client_ca;
  options.pem_key_cert_pairs.push_back(
      {tls->private_key, tls->certificate_chain});
  return grpc::SslServerCredentials(options);
}

absl::Status CheckAddress(const char* field, const std::string& address,
                          PlainText plain_text, const char* remedy) {
  const auto parsed = ParseAddress(address);
  if (!parsed.ok()) {
    return InvalidField(field, "BAD_ADDRESS",
                        absl::string_view(parsed.status().message()));
  }
  if (plain_text == PlainText::kAnywhere || IsLoopback(*parsed)) {
    return absl::OkStatus();
  }
  return InvalidField(field, "NOT_LOOPBACK",
                      absl::StrCat("got ", address, ", want ", remedy));
}

absl::Status CheckAddresses(const ListenerOptions& options) {
  const PlainText exposure =
      options.tls.has_value() ? PlainText::kAnywhere : options.plain_text;
  if (absl::Status s = CheckAddress(
          "public", options.public_address, exposure,
          "a loopback address, or TLS, or plain text allowed explicitly");
      !s.ok()) {
    return s;
  }
  // Health alone tells nobody anything worth hiding.
  if (absl::Status s = CheckAddress("probe", options.probe_address,
                                    PlainText::kAnywhere, "any address");
      !s.ok()) {
    return s;
  }
  return CheckAddress("admin", options.admin_address, PlainText::kLoopbackOnly,
                      "a loopback address");
}

struct ServerSpec {
  const char* name;
  std::string address;
  const grpc::ResourceQuota& quota;
  int max_receive_bytes;
  std::optional<TlsOptions> tls = std::nullopt;
  Plugins plugins = Plugins::kNone;
  std::vector<grpc::Service*> services;
};

absl::StatusOr<std::unique_ptr<grpc::Server>> Serve(
    const ServerSpec& spec, const ListenerOptions& options, int* port) {
  grpc::ServerBuilder builder;
  SetLimits(options, builder);
  builder.SetMaxReceiveMessageSize(spec.max_receive_bytes);
  builder.SetResourceQuota(spec.quota);
  builder.SetOption(std::make_unique<PluginOption>(spec.plugins));
  builder.AddListeningPort(spec.address, Credentials(spec.tls), port);
  for (grpc::Service* service : spec.services) {
    builder.RegisterService(service);
  }
  std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server != nullptr && *port > 0) return server;
  const char* material =
      spec.tls.has_value()
          ? ", and is the TLS material a PEM certificate and its key"
          : "";
  return WithReason(absl::UnavailableError(absl::StrCat(
                        spec.name, " listener: cannot serve at ", spec.address,
                        "; is the port free", material, "?")),
                    "CANNOT_LISTEN");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listeners>> Listeners::Create(
    const ListenerOptions& options, const Backends& backends,
    ServerControl& control) {
  if (absl::Status s = CheckAddresses(options); !s.ok()) return s;
  InitPluginsOnce();
  std::unique_ptr<Listeners> listeners(new Listeners(backends, control));
  if (absl::Status s = listeners->Build(options); !s.ok()) return s;
  return listeners;
}

Listeners::Listeners(const Backends& backends, ServerControl& control)
    : public_policies_(backends), admin_policies_(backends), admin_(control) {
  SetReady(Serving::kNo);
  for (HealthService* health :
       {&public_health_, &probe_health_, &admin_health_}) {
    health->Set(kLiveness, Serving::kYes);
  }
}

absl::Status Listeners::Build(const ListenerOptions& options) {
  // gRPC puts a whole message together before anybody sees it, whatever size it
  // claims and whether its sender has a credential, so only a quota bounds what
  // it holds: beyond it gRPC resets streams until it holds less.
  grpc::ResourceQuota requests("requests");
  requests.Resize(options.max_unparsed_bytes);
  grpc::ResourceQuota probes("probes");
  probes.Resize(kProbeMemory);
  auto server = Serve({.name = "public",
                       .address = options.public_address,
                       .quota = requests,
                       .max_receive_bytes = options.max_receive_bytes,
                       .tls = options.tls,
                       .services = {&public_policies_, &public_health_}},
                      options, &public_port_);
  if (!server.ok()) return server.status();
  public_server_ = *std::move(server);
  public_server_id_ = NewestServerId();

  server = Serve({.name = "probe",
                  .address = options.probe_address,
                  .quota = probes,
                  .max_receive_bytes = kProbeMessage,
                  .services = {&probe_health_}},
                 options, &probe_port_);
  if (!server.ok()) return server.status();
  probe_server_ = *std::move(server);

  server = Serve({.name = "admin",
                  .address = options.admin_address,
                  .quota = requests,
                  .max_receive_bytes = options.max_receive_bytes,
                  .plugins = Plugins::kAll,
                  .services = {&admin_policies_, &admin_health_, &admin_}},
                 options, &admin_port_);
  if (!server.ok()) return server.status();
  admin_server_ = *std::move(server);
  return absl::OkStatus();
}

Listeners::~Listeners() { Shutdown(absl::ZeroDuration()); }

void Listeners::SetReady(Serving serving) {
  for (HealthService* health :
       {&public_health_, &probe_health_, &admin_health_}) {
    health->Set("", serving);
    health->Set(kServiceName, serving);
  }
}

void Listeners::Drain() {
  SetReady(Serving::kNo);
  public_policies_.Drain();
  admin_policies_.Drain();
}

void Listeners::Shutdown(absl::Duration grace) {
  Drain();
  public_policies_.WaitIdle(grace);
  admin_policies_.WaitIdle(absl::ZeroDuration());
  for (HealthService* health :
       {&public_health_, &admin_health_, &probe_health_}) {
    health->EndWatches();
  }
  // The probe goes last: it says "not ready" while the others close.
  for (auto* server : {&public_server_, &admin_server_, &probe_server_}) {
    if (*server == nullptr) continue;
    (*server)->Shutdown(std::chrono::system_clock::now() + kLastCalls);
    server->reset();
  }
}

int Listeners::Connections() const {
  return CountConnections(public_server_id_);
}

}  // namespace piserve::server::rpc
