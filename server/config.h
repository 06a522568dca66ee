// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "model/policy_config.h"
#include "model/rope_table.h"

namespace piserve::server {

// server/config.proto after checking: defaults filled in, paths resolved, every
// number in its range.

enum class Precision { kBFloat16, kFloat32 };
enum class Backend { kReference, kEngine };
enum class PromptOverflow { kRefuse, kTruncate };
enum class Insecure { kRefused, kAllowed };

// What wins over variant.json, a lerobot config.json and the named row.
struct PolicyOverrides {
  std::optional<bool> pi05;
  std::optional<int> action_horizon;
  std::optional<int> max_token_len;
  std::optional<NormMode> norm;
  std::optional<std::string> asset_id;
  std::optional<Robot> robot;
  std::optional<bool> adapt_to_pi;
  std::optional<std::vector<int>> absolute_actions;
  std::optional<std::string> default_prompt;
  std::optional<bool> discrete_state_input;
  std::optional<std::vector<double>> reset_pose;
  std::optional<double> control_rate_hz;
};

struct CheckpointWeights {
  std::string folder;
};

struct SyntheticWeights {
  std::uint64_t seed = 0;
};

struct PolicyEntry {
  std::string name;
  std::string policy_config;
  std::variant<CheckpointWeights, SyntheticWeights> weights;
  std::string variant_json;  // empty: beside the checkpoint, if at all
  std::string norm_stats;    // empty: where the checkpoint keeps it
  std::string tokenizer;
  Precision precision = Precision::kBFloat16;
  PolicyOverrides overrides;
  std::vector<int> step_counts;  // the first one is the default; empty: the
                                 // checkpoint's own, else 10
  std::vector<int> batch_sizes;  // ascending
  Backend backend = Backend::kReference;
  int threads = 0;  // 0: by the checkpoint's size
  PromptOverflow prompt_overflow = PromptOverflow::kRefuse;
  std::string plan;  // of the engine; empty: not kept
  RopeTable rope_table = RopeTable::kBf16;
};

// "host:port"; port 0 takes a free one.
struct ListenerConfig {
  std::string grpc = "127.0.0.1:50051";
  std::string probe = "127.0.0.1:50052";
  std::string admin = "127.0.0.1:50053";
  std::string http = "127.0.0.1:9464";
  std::string websocket;  // empty: off
};

struct TlsConfig {
  std::string certificate;  // paths of PEM files
  std::string private_key;
  std::string client_ca;  // empty: clients need no certificate
};

struct ApiKeyConfig {
  std::string identity;
  std::string key_sha256;             // lower-case hex
  std::vector<std::string> policies;  // empty: all
};

struct LimitsConfig {
  int rows = 128;
  std::size_t bytes = std::size_t{512} << 20;
  absl::Duration predicted = absl::Milliseconds(250);
  int rows_per_client = 96;
  absl::Duration default_deadline = absl::Seconds(5);
  absl::Duration max_deadline = absl::Seconds(30);
  int receive_bytes = 8 << 20;
  int websocket_connections = 64;
  int websocket_in_flight = 4;
};

enum class LogLevel { kDebug, kInfo, kWarn, kError };
enum class LogFormat { kText, kJson };

struct LoggingConfig {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
};

struct WatchdogConfig {
  double factor = 10;
  std::optional<absl::Duration> floor;  // absent: by backend
};

struct RecordConfig {
  std::string folder;  // empty: nothing is kept
  std::uint64_t max_bytes = std::uint64_t{1} << 30;
};

struct Config {
  std::vector<PolicyEntry> policies;
  ListenerConfig listeners;
  std::optional<TlsConfig> tls;
  std::vector<ApiKeyConfig> api_keys;
  LimitsConfig limits;
  int decode_workers = 1;
  absl::Duration drain_grace = absl::Seconds(25);
  LoggingConfig logging;
  Insecure insecure = Insecure::kRefused;
  WatchdogConfig watchdog;
  RecordConfig record;
};

// Relative paths in `text` are taken from `folder`. INVALID_ARGUMENT in one
// line that says where, what, got and want.
absl::StatusOr<Config> ParseConfig(absl::string_view text,
                                   absl::string_view folder);

// NOT_FOUND if the file cannot be read, else as ParseConfig.
absl::StatusOr<Config> LoadConfig(const std::string& path);

// What hangs together: to be asked again when a flag changed an address.
// INVALID_ARGUMENT if the public or the websocket port is plain text, reachable
// from elsewhere and this was not allowed, or if the admin port is not on
// loopback.
absl::Status CheckListeners(const Config& config);

}  // namespace piserve::server
