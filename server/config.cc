// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/address.h"
#include "server/config.pb.h"
#include "server/config_check.h"
#include "server/config_parse.h"

namespace piserve::server {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;
// More than a prepared row takes: three cameras of 224 x 224 pixels, 4096
// tokens and a state.
constexpr std::size_t kRowBytes = 512 << 10;

absl::Duration Milliseconds(std::uint32_t ms) { return absl::Milliseconds(ms); }

int Cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

ListenerConfig ReadListeners(const config::Listeners& in,
                             ConfigChecker& check) {
  ListenerConfig out;
  out.grpc = check.Address("listeners.public", in.public_(), out.grpc);
  out.probe = check.Address("listeners.probe", in.probe(), out.probe);
  out.admin = check.Address("listeners.admin", in.admin(), out.admin);
  out.http = check.Address("listeners.http", in.http(), out.http);
  out.websocket =
      check.Address("listeners.websocket", in.websocket(), out.websocket);
  return out;
}

TlsConfig ReadTls(const config::Tls& in, ConfigChecker& check) {
  return {.certificate =
              check.Path(check.Text("tls.certificate", in.certificate())),
          .private_key =
              check.Path(check.Text("tls.private_key", in.private_key())),
          .client_ca = check.Path(in.client_ca())};
}

ApiKeyConfig ReadApiKey(const config::ApiKey& in, int index,
                        const std::vector<std::string>& hosted,
                        ConfigChecker& check) {
  ApiKeyConfig out;
  out.identity =
      check.Name(ConfigField("api_keys", index, "identity"), in.identity());
  out.key_sha256 = absl::AsciiStrToLower(in.key_sha256());
  bool hex = out.key_sha256.size() == 64;
  for (const char c : out.key_sha256) hex &= absl::ascii_isxdigit(c);
  if (!hex) {
    check.Fail(ConfigField("api_keys", index, "key_sha256"),
               absl::StrCat(out.key_sha256.size(), " bytes"), "64 hex digits");
  }
  out.policies.assign(in.policies().begin(), in.policies().end());
  for (const std::string& policy : out.policies) {
    if (std::find(hosted.begin(), hosted.end(), policy) == hosted.end()) {
      check.Fail(ConfigField("api_keys", index, "policies"),
                 absl::CHexEscape(policy),
                 absl::StrCat("one of ", absl::StrJoin(hosted, ", ")));
    }
  }
  return out;
}

LimitsConfig ReadLimits(const config::Limits& in, ConfigChecker& check) {
  LimitsConfig out;
  if (in.has_rows()) {
    out.rows = check.Range("limits.rows", in.rows(), 1u, 65536u);
  }
  if (in.has_bytes()) {
    out.bytes = check.Range<std::uint64_t>("limits.bytes", in.bytes(), 1 << 20,
                                           std::uint64_t{1} << 40);
  }
  if (in.has_predicted_ms()) {
    out.predicted = Milliseconds(
        check.Range("limits.predicted_ms", in.predicted_ms(), 1u, 600000u));
  }
  if (in.has_rows_per_client()) {
    out.rows_per_client =
        check.Range("limits.rows_per_client", in.rows_per_client(), 1u, 65536u);
  }
  if (in.has_default_deadline_ms()) {
    out.default_deadline = Milliseconds(check.Range(
        "limits.default_deadline_ms", in.default_deadline_ms(), 1u, 3600000u));
  }
  if (in.has_max_deadline_ms()) {
    out.max_deadline = Milliseconds(check.Range(
        "limits.max_deadline_ms", in.max_deadline_ms(), 1u, 3600000u));
  }
  if (out.default_deadline > out.max_deadline) {
    check.Fail("limits.default_deadline_ms",
               absl::FormatDuration(out.default_deadline),
               absl::StrCat("at most max_deadline_ms, ",
                            absl::FormatDuration(out.max_deadline)));
  }
  if (in.has_receive_bytes()) {
    out.receive_bytes = check.Range("limits.receive_bytes", in.receive_bytes(),
                                    1024u, 256u << 20);
  }
  // Else no request of that size could ever be let in.
  if (const std::size_t least = out.receive_bytes + kRowBytes;
      out.bytes < least) {
    check.Fail("limits.bytes", absl::StrCat(out.bytes),
               absl::StrCat("at least ", least,
                            ": limits.receive_bytes and what a row takes"));
  }
  if (in.has_websocket_connections()) {
    out.websocket_connections = check.Range(
        "limits.websocket_connections", in.websocket_connections(), 1u, 65536u);
  }
  if (in.has_websocket_in_flight()) {
    out.websocket_in_flight = check.Range("limits.websocket_in_flight",
                                          in.websocket_in_flight(), 1u, 1024u);
  }
  return out;
}

LoggingConfig ReadLogging(const config::Logging& in) {
  LoggingConfig out;
  switch (in.level()) {
    case config::Logging::DEBUG:
      out.level = LogLevel::kDebug;
      break;
    case config::Logging::WARN:
      out.level = LogLevel::kWarn;
      break;
    case config::Logging::ERROR:
      out.level = LogLevel::kError;
      break;
    default:
      break;
  }
  if (in.format() == config::Logging::JSON) out.format = LogFormat::kJson;
  return out;
}

WatchdogConfig ReadWatchdog(const config::Watchdog& in, ConfigChecker& check) {
  WatchdogConfig out;
  if (in.has_factor()) {
    out.factor = check.Range("watchdog.factor", in.factor(), 1.0, 1000.0);
  }
  if (in.has_floor_ms()) {
    out.floor = Milliseconds(
        check.Range("watchdog.floor_ms", in.floor_ms(), 1u, 600000u));
  }
  return out;
}

RecordConfig ReadRecord(const config::Record& in, ConfigChecker& check) {
  RecordConfig out;
  out.folder = check.Path(in.folder());
  if (in.has_max_mib()) {
    out.max_bytes =
        std::uint64_t{check.Range("record.max_mib", in.max_mib(), 1u, 1u << 20)}
        << 20;
  }
  return out;
}

absl::StatusOr<Config> Read(const config::ServerConfig& in,
                            absl::string_view folder) {
  ConfigChecker check(folder);
  Config out;
  out.policies = ReadPolicies(in, check);
  out.listeners = ReadListeners(in.listeners(), check);
  if (in.has_tls()) out.tls = ReadTls(in.tls(), check);
  std::vector<std::string> hosted;
  for (const PolicyEntry& entry : out.policies) hosted.push_back(entry.name);
  for (const config::ApiKey& key : in.api_keys()) {
    out.api_keys.push_back(
        ReadApiKey(key, static_cast<int>(out.api_keys.size()), hosted, check));
  }
  out.limits = ReadLimits(in.limits(), check);
  out.decode_workers =
      in.has_decode_workers()
          ? check.Range("decode_workers", in.decode_workers(), 1u, 1024u)
          : Cores();
  if (in.has_drain_grace_ms()) {
    out.drain_grace = Milliseconds(
        check.Range("drain_grace_ms", in.drain_grace_ms(), 1u, 3600000u));
  }
  out.logging = ReadLogging(in.logging());
  out.insecure = in.allow_insecure() ? Insecure::kAllowed : Insecure::kRefused;
  out.watchdog = ReadWatchdog(in.watchdog(), check);
  out.record = ReadRecord(in.record(), check);
  if (!check.status().ok()) return check.status();
  return out;
}

}  // namespace

absl::Status CheckListeners(const Config& config) {
  const ListenerConfig& listeners = config.listeners;
  for (const std::string* address :
       {&listeners.grpc, &listeners.probe, &listeners.admin, &listeners.http}) {
    const absl::StatusOr<HostPort> parsed = ParseAddress(*address);
    if (!parsed.ok()) return parsed.status();
  }
  if (!IsLoopback(*ParseAddress(listeners.admin))) {
    return BadConfig("listeners.admin", listeners.admin, "a loopback address");
  }
  if (!IsLoopback(*ParseAddress(listeners.grpc)) && !config.tls &&
      config.insecure == Insecure::kRefused) {
    return BadConfig("listeners.public", listeners.grpc,
                     "a loopback address, tls, or allow_insecure");
  }
  if (listeners.websocket.empty()) return absl::OkStatus();
  const absl::StatusOr<HostPort> websocket = ParseAddress(listeners.websocket);
  if (!websocket.ok()) return websocket.status();
  if (!IsLoopback(*websocket) && config.insecure == Insecure::kRefused) {
    return BadConfig("listeners.websocket", listeners.websocket,
                     "a loopback address, or allow_insecure: it is plain text");
  }
  return absl::OkStatus();
}

absl::StatusOr<Config> ParseConfig(absl::string_view text,
                                   absl::string_view folder) {
  if (text.size() > kMaxFileBytes) {
    return BadConfig("size", absl::StrCat(text.size(), " bytes"),
                     absl::StrCat("at most ", kMaxFileBytes));
  }
  config::ServerConfig message;
  const absl::Status parsed = ParseConfigText(text, message);
  if (!parsed.ok()) return parsed;
  absl::StatusOr<Config> config = Read(message, folder);
  if (!config.ok()) return config;
  const absl::Status listeners = CheckListeners(*config);
  if (!listeners.ok()) return listeners;
  return config;
}

absl::StatusOr<Config> LoadConfig(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxFileBytes + 1, '\0');
  if (file.is_open()) file.read(text.data(), text.size());
  if (!file.is_open() || file.bad() || !file.eof()) {
    return absl::NotFoundError(absl::StrCat("configuration: cannot read ", path,
                                            ", want a file of at most ",
                                            kMaxFileBytes, " bytes"));
  }
  text.resize(file.gcount());
  return ParseConfig(text, std::filesystem::path(path).parent_path().string());
}

}  // namespace piserve::server
