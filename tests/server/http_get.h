// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "tests/server/loopback.h"

namespace piserve::testing {

// The whole response to `request` from a loopback port, head included; empty if
// nobody listens. The server must close the connection.
inline std::string HttpExchange(int port, const std::string& request) {
  const int fd = server::ConnectToLoopback(port);
  if (fd < 0) return "";
  std::string response;
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) >= 0) {
    char buffer[4096];
    ssize_t n = 0;
    while ((n = recv(fd, buffer, sizeof buffer, 0)) > 0) {
      response.append(buffer, n);
    }
  }
  close(fd);
  return response;
}

inline std::string HttpGet(int port, const std::string& path) {
  return HttpExchange(port,
                      "GET " + path + " HTTP/1.1\r\nHost: localhost\r\n\r\n");
}

}  // namespace piserve::testing
