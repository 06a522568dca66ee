// SPDX-License-Identifier: Apache-2.0
#include "tests/clients/cpp/server_child.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace piserve::client {
namespace {

constexpr absl::Duration kStartTimeout = absl::Seconds(60);
constexpr absl::Duration kPoll = absl::Milliseconds(20);

void Stop(pid_t pid) {
  kill(pid, SIGTERM);
  waitpid(pid, nullptr, 0);
}

// Of the line "public PORT".
std::optional<int> PublicPort(const std::string& path) {
  std::ifstream file(path);
  std::string name;
  int port = 0;
  while (file >> name >> port) {
    if (name == "public") return port;
  }
  return std::nullopt;
}

pid_t Spawn(const std::vector<std::string>& command) {
  std::vector<char*> arguments;
  for (const std::string& word : command) {
    arguments.push_back(const_cast<char*>(word.c_str()));
  }
  arguments.push_back(nullptr);
  const pid_t pid = fork();
  if (pid == 0) {
    execv(arguments[0], arguments.data());
    _exit(127);
  }
  return pid;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ServerChild>> ServerChild::Run(
    std::vector<std::string> command) {
  const std::string program = command.front();
  const std::string ports = (std::filesystem::temp_directory_path() /
                             absl::StrCat("piserve-ports-", getpid()))
                                .string();
  command.push_back(absl::StrCat("--port_file=", ports));
  for (const char* listener : {"public", "probe", "admin", "http"}) {
    command.push_back(absl::StrCat("--", listener, "_address=127.0.0.1:0"));
  }
  const pid_t pid = Spawn(command);
  if (pid < 0) {
    return absl::InternalError(
        absl::StrCat(program, ": ", std::strerror(errno)));
  }
  const absl::Time give_up = absl::Now() + kStartTimeout;
  while (absl::Now() < give_up && waitpid(pid, nullptr, WNOHANG) == 0) {
    if (const auto port = PublicPort(ports); port.has_value()) {
      std::filesystem::remove(ports);
      return absl::WrapUnique(new ServerChild(pid, *port));
    }
    absl::SleepFor(kPoll);
  }
  Stop(pid);
  return absl::UnavailableError(absl::StrCat(program, ": does not start"));
}

absl::StatusOr<std::unique_ptr<ServerChild>> ServerChild::Fork(
    const std::function<void(const std::function<void(int)>&)>& serve) {
  int pipe_ends[2];
  if (pipe(pipe_ends) != 0) {
    return absl::InternalError(absl::StrCat("pipe: ", std::strerror(errno)));
  }
  const pid_t pid = fork();
  if (pid == 0) {
    serve([&](int port) {
      if (write(pipe_ends[1], &port, sizeof port) != sizeof port) _exit(1);
    });
    _exit(0);
  }
  close(pipe_ends[1]);
  int port = 0;
  const bool told = read(pipe_ends[0], &port, sizeof port) == sizeof port;
  close(pipe_ends[0]);
  if (told) return absl::WrapUnique(new ServerChild(pid, port));
  Stop(pid);
  return absl::UnavailableError("the forked server does not start");
}

ServerChild::ServerChild(pid_t pid, int port)
    : pid_(pid), address_(absl::StrCat("127.0.0.1:", port)) {}

ServerChild::~ServerChild() { Stop(pid_); }

}  // namespace piserve::client
