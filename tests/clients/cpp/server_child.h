// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace piserve::client {

// A server in a process of its own; SIGTERM when it is destroyed.
class ServerChild {
 public:
  // Runs a server program on free ports: `command` and the flags that name its
  // addresses and its port file. Waits until it has written that.
  static absl::StatusOr<std::unique_ptr<ServerChild>> Run(
      std::vector<std::string> command);

  // Runs `serve` in a fork of this process; it hands its port to the function
  // that it is given and then serves until the process is stopped. To be called
  // before anything of gRPC's.
  static absl::StatusOr<std::unique_ptr<ServerChild>> Fork(
      const std::function<void(const std::function<void(int)>&)>& serve);

  ~ServerChild();

  const std::string& address() const { return address_; }  // 127.0.0.1:port

 private:
  ServerChild(pid_t pid, int port);

  const pid_t pid_;
  const std::string address_;
};

}  // namespace piserve::client
