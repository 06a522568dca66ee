// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::server::rpc {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// What an operator may do through the admin listener. Thread-safe; never
// blocks.
class ServerControl {
 public:
  virtual ~ServerControl() = default;

  // Begins what SIGTERM begins; repeating it changes nothing.
  virtual void Drain() = 0;

  // Returns the level that was in force.
  virtual LogLevel SetLogLevel(LogLevel level) = 0;
};

}  // namespace piserve::server::rpc
