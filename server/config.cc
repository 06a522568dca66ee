// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "server/address.h"
#include "server/config.pb.h"

namespace piserve::server {
namespace {

constexpr std::size_t kMaxFileBytes = 1 << 20;
constexpr std::size_t kMaxNameLength = 64;

absl::Status Bad(absl::string_view field, absl::string_view got,
                 absl::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat("configuration: ", field, ": got ", got, ", want ", want));
}

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!text_.empty()) return;  // later ones follow from it
    text_ = absl::StrCat("configuration: line ", line + 1, ", column ",
                         column + 1, ": ", message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Checks values and keeps the first error: a reader is a list of its fields.
class Checker {
 public:
  explicit Checker(absl::string_view folder) : folder_(folder) {}

  void Fail(absl::string_view field, absl::string_view got,
            absl::string_view want) {
    if (status_.ok()) status_ = Bad(field, got, want);
  }

  template <typename T>
  T Range(absl::string_view field, T value, T low, T high) {
    if (value >= low && value <= high) return value;
    Fail(field, absl::StrCat(value), absl::StrCat(low, " to ", high));
    return low;
  }

  std::string Text(absl::string_view field, const std::string& value) {
    if (value.empty()) Fail(field, "nothing", "a value");
    return value;
  }

  // Relative to the folder of the configuration; empty stays empty.
  std::string Path(const std::string& path) const {
    if (path.empty() || path.front() == '/' || folder_.empty()) return path;
    return (std::filesystem::path(folder_) / path).lexically_normal().string();
  }

  // What metrics, logs and the wire may show: no quoting needed anywhere.
  std::string Name(absl::string_view field, const std::string& name) {
    bool good = !name.empty() && name.size() <= kMaxNameLength;
    for (const char c : name) {
      good &= absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
    }
    if (!good) {
      Fail(field, absl::StrCat(name.size(), " bytes"),
           "1 to 64 letters, digits, '.', '_' or '-'");
    }
    return name;
  }

  std::string Address(absl::string_view field, const std::string& value,
                      const std::string& otherwise) {
    if (value.empty()) return otherwise;
    const absl::StatusOr<HostPort> address = ParseAddress(value);
    if (!address.ok() && status_.ok()) {
      status_ = absl::InvalidArgumentError(absl::StrCat(
          "configuration: ", field, ": ", address.status().message()));
    }
    return value;
  }

  const absl::Status& status() const { return status_; }

 private:
  const std::string folder_;
  absl::Status status_;
};

std::string Field(absl::string_view list, int index, absl::string_view name) {
  return absl::StrCat(list, "[", index, "].", name);
}

absl::Duration Milliseconds(std::uint32_t ms) { return absl::Milliseconds(ms); }

int Cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

PolicyOverrides ReadOverrides(const config::Overrides& in,
                              const std::string& at, Checker& check) {
  PolicyOverrides out;
  if (in.has_pi05()) out.pi05 = in.pi05();
  if (in.has_action_horizon()) {
    out.action_horizon = check.Range<int>(absl::StrCat(at, ".action_horizon"),
                                          in.action_horizon(), 1, 1024);
  }
  if (in.has_max_token_len()) {
    out.max_token_len = check.Range<int>(absl::StrCat(at, ".max_token_len"),
                                         in.max_token_len(), 1, 4096);
  }
  if (in.has_norm()) {
    out.norm = in.norm() == config::Overrides::QUANTILE ? NormMode::kQuantile
                                                        : NormMode::kMeanStd;
  }
  if (in.has_asset_id()) {
    out.asset_id = check.Text(absl::StrCat(at, ".asset_id"), in.asset_id());
  }
  if (in.has_robot()) {
    out.robot = in.robot() == config::Overrides::DROID   ? Robot::kDroid
                : in.robot() == config::Overrides::ALOHA ? Robot::kAloha
                                                         : Robot::kLibero;
  }
  if (in.has_adapt_to_pi()) out.adapt_to_pi = in.adapt_to_pi();
  if (in.has_absolute_actions()) {
    const auto& dims = in.absolute_actions().dims();
    for (const int n : dims) {
      check.Range(absl::StrCat(at, ".absolute_actions.dims"), n, -1024, 1024);
    }
    out.absolute_actions.emplace(dims.begin(), dims.end());
  }
  if (in.has_default_prompt()) out.default_prompt = in.default_prompt();
  if (in.has_discrete_state_input()) {
    out.discrete_state_input = in.discrete_state_input();
  }
  if (in.has_reset_pose()) {
    const auto& pose = in.reset_pose().rad();
    out.reset_pose.emplace(pose.begin(), pose.end());
  }
  if (in.has_control_rate_hz()) {
    out.control_rate_hz = check.Range(absl::StrCat(at, ".control_rate_hz"),
                                      in.control_rate_hz(), 1e-3, 1e5);
  }
  return out;
}

// A CPU gains little from sizes in between; a GPU has a graph for each.
std::vector<int> DefaultBatchSizes(Backend backend) {
  if (backend == Backend::kReference) return {1, 2, 4, 8, 16, 32, 64};
  std::vector<int> sizes(64);
  std::iota(sizes.begin(), sizes.end(), 1);
  return sizes;
}

void ReadSizes(const config::PolicyEntry& in, int index, PolicyEntry& out,
               Checker& check) {
  out.step_counts.assign(in.step_counts().begin(), in.step_counts().end());
  out.batch_sizes.assign(in.batch_sizes().begin(), in.batch_sizes().end());
  if (out.batch_sizes.empty()) {
    out.batch_sizes = DefaultBatchSizes(out.backend);
  }
  int previous = 0;
  for (const int size : out.batch_sizes) {
    check.Range(Field("policies", index, "batch_sizes"), size, 1, 1024);
    if (size <= previous) {
      check.Fail(Field("policies", index, "batch_sizes"),
                 absl::StrCat(size, " after ", previous), "ascending sizes");
    }
    previous = size;
  }
  std::set<int> steps;
  for (const int count : out.step_counts) {
    check.Range(Field("policies", index, "step_counts"), count, 1, 1000);
    if (!steps.insert(count).second) {
      check.Fail(Field("policies", index, "step_counts"),
                 absl::StrCat(count, " twice"), "each count once");
    }
  }
}

void ReadWeights(const config::PolicyEntry& in, int index, PolicyEntry& out,
                 Checker& check) {
  switch (in.weights_case()) {
    case config::PolicyEntry::kCheckpoint:
      out.weights = CheckpointWeights{check.Path(
          check.Text(Field("policies", index, "checkpoint"), in.checkpoint()))};
      break;
    case config::PolicyEntry::kSynthetic:
      out.weights = SyntheticWeights{in.synthetic().seed()};
      break;
    case config::PolicyEntry::WEIGHTS_NOT_SET:
      check.Fail(absl::StrCat("policies[", index, "]"), "no weights",
                 "checkpoint or synthetic");
  }
}

Precision ReadPrecision(const config::PolicyEntry& in, int index,
                        Checker& check) {
  if (in.precision() == config::PRECISION_UNSPECIFIED) {
    check.Fail(Field("policies", index, "precision"), "nothing",
               "BFLOAT16 or FLOAT32");
  }
  return in.precision() == config::FLOAT32 ? Precision::kFloat32
                                           : Precision::kBFloat16;
}

// What only the engine has, and what it wants.
void ReadEngine(const config::PolicyEntry& in, int index, PolicyEntry& out,
                Checker& check) {
  out.plan = check.Path(in.plan());
  out.rope_table =
      in.rope_table() == config::EXACT ? RopeTable::kExact : RopeTable::kBf16;
  const auto fail = [&](const char* field, const char* got, const char* want) {
    check.Fail(Field("policies", index, field), got, want);
  };
  if (out.backend == Backend::kEngine) {
    if (out.precision == Precision::kFloat32) {
      fail("precision", "FLOAT32",
           "BFLOAT16, which backend ENGINE computes in");
    }
    return;
  }
  if (!in.plan().empty()) fail("plan", "a file", "none without ENGINE");
  if (out.rope_table == RopeTable::kExact) {
    fail("rope_table", "EXACT", "BF16 without backend ENGINE");
  }
}

PolicyEntry ReadPolicy(const config::PolicyEntry& in, int index,
                       Checker& check) {
  PolicyEntry out;
  out.name = check.Name(Field("policies", index, "name"), in.name());
  out.policy_config =
      check.Text(Field("policies", index, "policy_config"), in.policy_config());
  ReadWeights(in, index, out, check);
  out.norm_stats = check.Path(in.norm_stats());
  out.variant_json = check.Path(in.variant_json());
  out.tokenizer = check.Path(
      check.Text(Field("policies", index, "tokenizer"), in.tokenizer()));
  out.precision = ReadPrecision(in, index, check);
  out.overrides = ReadOverrides(in.overrides(),
                                Field("policies", index, "overrides"), check);
  out.backend =
      in.backend() == config::ENGINE ? Backend::kEngine : Backend::kReference;
  ReadSizes(in, index, out, check);
  out.threads = check.Range<int>(Field("policies", index, "threads"),
                                 in.threads(), 0, 1024);
  out.prompt_overflow = in.prompt_overflow() == config::TRUNCATE
                            ? PromptOverflow::kTruncate
                            : PromptOverflow::kRefuse;
  ReadEngine(in, index, out, check);
  return out;
}

std::vector<PolicyEntry> ReadPolicies(const config::ServerConfig& in,
                                      Checker& check) {
  if (in.policies().empty()) check.Fail("policies", "none", "at least one");
  std::vector<PolicyEntry> out;
  std::set<std::string> names;
  for (const config::PolicyEntry& policy : in.policies()) {
    out.push_back(ReadPolicy(policy, static_cast<int>(out.size()), check));
    if (!names.insert(policy.name()).second) {
      check.Fail("policies", "a name twice", "each name once");
    }
  }
  return out;
}

ListenerConfig ReadListeners(const config::Listeners& in, Checker& check) {
  ListenerConfig out;
  out.grpc = check.Address("listeners.public", in.public_(), out.grpc);
  out.probe = check.Address("listeners.probe", in.probe(), out.probe);
  out.admin = check.Address("listeners.admin", in.admin(), out.admin);
  out.http = check.Address("listeners.http", in.http(), out.http);
  out.websocket =
      check.Address("listeners.websocket", in.websocket(), out.websocket);
  return out;
}

TlsConfig ReadTls(const config::Tls& in, Checker& check) {
  return {.certificate =
              check.Path(check.Text("tls.certificate", in.certificate())),
          .private_key =
              check.Path(check.Text("tls.private_key", in.private_key())),
          .client_ca = check.Path(in.client_ca())};
}

ApiKeyConfig ReadApiKey(const config::ApiKey& in, int index, Checker& check) {
  ApiKeyConfig out;
  out.identity =
      check.Name(Field("api_keys", index, "identity"), in.identity());
  out.key_sha256 = absl::AsciiStrToLower(in.key_sha256());
  bool hex = out.key_sha256.size() == 64;
  for (const char c : out.key_sha256) hex &= absl::ascii_isxdigit(c);
  if (!hex) {
    check.Fail(Field("api_keys", index, "key_sha256"),
               absl::StrCat(out.key_sha256.size(), " bytes"), "64 hex digits");
  }
  out.policies.assign(in.policies().begin(), in.policies().end());
  return out;
}

LimitsConfig ReadLimits(const config::Limits& in, Checker& check) {
  LimitsConfig out;
  if (in.has_rows()) {
    out.rows = check.Range<int>("limits.rows", in.rows(), 1, 65536);
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
    out.rows_per_client = check.Range<int>("limits.rows_per_client",
                                           in.rows_per_client(), 1, 65536);
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
    out.receive_bytes = check.Range<int>("limits.receive_bytes",
                                         in.receive_bytes(), 1024, 256 << 20);
  }
  if (in.has_websocket_connections()) {
    out.websocket_connections = check.Range<int>(
        "limits.websocket_connections", in.websocket_connections(), 1, 65536);
  }
  if (in.has_websocket_in_flight()) {
    out.websocket_in_flight = check.Range<int>(
        "limits.websocket_in_flight", in.websocket_in_flight(), 1, 1024);
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

WatchdogConfig ReadWatchdog(const config::Watchdog& in, Checker& check) {
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

RecordConfig ReadRecord(const config::Record& in, Checker& check) {
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
  Checker check(folder);
  Config out;
  out.policies = ReadPolicies(in, check);
  out.listeners = ReadListeners(in.listeners(), check);
  if (in.has_tls()) out.tls = ReadTls(in.tls(), check);
  for (const config::ApiKey& key : in.api_keys()) {
    out.api_keys.push_back(
        ReadApiKey(key, static_cast<int>(out.api_keys.size()), check));
  }
  out.limits = ReadLimits(in.limits(), check);
  out.decode_workers =
      in.has_decode_workers()
          ? check.Range<int>("decode_workers", in.decode_workers(), 1, 1024)
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
    return Bad("listeners.admin", listeners.admin, "a loopback address");
  }
  if (!IsLoopback(*ParseAddress(listeners.grpc)) && !config.tls &&
      config.insecure == Insecure::kRefused) {
    return Bad("listeners.public", listeners.grpc,
               "a loopback address, tls, or allow_insecure");
  }
  if (listeners.websocket.empty()) return absl::OkStatus();
  const absl::StatusOr<HostPort> websocket = ParseAddress(listeners.websocket);
  if (!websocket.ok()) return websocket.status();
  if (!IsLoopback(*websocket) && config.insecure == Insecure::kRefused) {
    return Bad("listeners.websocket", listeners.websocket,
               "a loopback address, or allow_insecure: it is plain text");
  }
  return absl::OkStatus();
}

absl::StatusOr<Config> ParseConfig(absl::string_view text,
                                   absl::string_view folder) {
  if (text.size() > kMaxFileBytes) {
    return Bad("size", absl::StrCat(text.size(), " bytes"),
               absl::StrCat("at most ", kMaxFileBytes));
  }
  config::ServerConfig message;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  parser.SetRecursionLimit(16);
  google::protobuf::io::ArrayInputStream stream(text.data(),
                                                static_cast<int>(text.size()));
  if (!parser.Parse(&stream, &message)) {
    return absl::InvalidArgumentError(error.text());
  }
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
