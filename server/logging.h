// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <ostream>
#include <string>
#include <variant>

#include "absl/strings/string_view.h"
#include "server/config.h"

namespace spdlog {
class logger;
namespace details {
class thread_pool;
}
}  // namespace spdlog

namespace piserve::server {

// A thing said about an event. Strings may be a client's: they are always
// escaped.
struct LogField {
  absl::string_view key;  // ours: lower_snake_case
  std::variant<absl::string_view, std::int64_t, double> value;
};

// One line an event, as text
//   2026-01-31T12:00:00.000Z info request refused request_id="a" code="ABORTED"
// or as a JSON object
//   {"time":"2026-...","level":"info","message":"request refused",
//    "request_id":"a","code":"ABORTED"}
//
// Thread-safe. Writing never waits for the reader: lines go through a bounded
// queue, whose oldest are lost when it is full.
class Logger {
 public:
  // `out` outlives the logger; null: standard error.
  explicit Logger(const LoggingConfig& config, std::ostream* out = nullptr);
  ~Logger();  // writes what was said

  void Log(LogLevel level, absl::string_view message,
           std::initializer_list<LogField> fields = {});

  bool Wants(LogLevel level) const;

  // Returns the level that was in force.
  LogLevel SetLevel(LogLevel level);

 private:
  const LogFormat format_;
  std::shared_ptr<spdlog::details::thread_pool> writer_;
  std::shared_ptr<spdlog::logger> logger_;
};

// At most the first 256 bytes of `text`, fit to stand inside a JSON string:
// quotes and backslashes escaped, every byte that is not printable ASCII as
// \u00XX.
std::string EscapeForLog(absl::string_view text);

}  // namespace piserve::server
