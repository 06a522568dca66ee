// SPDX-License-Identifier: Apache-2.0
#include "server/run.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

ABSL_FLAG(std::string, public_address, "", "PolicyService: host:port");
ABSL_FLAG(std::string, probe_address, "", "Health alone, plain: host:port");
ABSL_FLAG(std::string, admin_address, "", "Administration: loopback host:port");
ABSL_FLAG(std::string, http_address, "", "Metrics and status: host:port");
ABSL_FLAG(std::string, websocket_address, "",
          "openpi's websocket wire, off without: host:port");
ABSL_FLAG(int, port, -1, "Port of the public address");
ABSL_FLAG(std::string, port_file, "",
          "File that gets a line \"name port\" for each listener");
ABSL_FLAG(bool, allow_insecure, false,
          "Serve plain text on an address that others can reach");
ABSL_FLAG(std::string, record, "",
          "Folder for requests and their answers, for policy_cli replay");
ABSL_FLAG(std::string, log_level, "", "debug, info, warn or error");

namespace piserve::server {
namespace {

constexpr int kRefusedToStart = 1;

void Override(const absl::Flag<std::string>& flag, std::string& to) {
  const std::string value = absl::GetFlag(flag);
  if (!value.empty()) to = value;
}

absl::Status OverrideLogLevel(LogLevel& level) {
  const std::string name = absl::GetFlag(FLAGS_log_level);
  if (name.empty()) return absl::OkStatus();
  constexpr std::pair<const char*, LogLevel> kLevels[] = {
      {"debug", LogLevel::kDebug},
      {"info", LogLevel::kInfo},
      {"warn", LogLevel::kWarn},
      {"error", LogLevel::kError}};
  for (const auto& [known, value] : kLevels) {
    if (name != known) continue;
    level = value;
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "log_level: got \"", name, "\", want debug, info, warn or error"));
}

absl::Status OverrideByFlags(Config& config) {
  Override(FLAGS_public_address, config.listeners.grpc);
  Override(FLAGS_probe_address, config.listeners.probe);
  Override(FLAGS_admin_address, config.listeners.admin);
  Override(FLAGS_http_address, config.listeners.http);
  Override(FLAGS_websocket_address, config.listeners.websocket);
  if (const int port = absl::GetFlag(FLAGS_port); port >= 0) {
    std::string& address = config.listeners.grpc;
    address = absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  }
  Override(FLAGS_record, config.record.folder);
  if (absl::GetFlag(FLAGS_allow_insecure)) {
    config.insecure = Insecure::kAllowed;
  }
  return OverrideLogLevel(config.logging.level);
}

// One line, whatever a library put into the message.
int Refuse(const std::string& program, const absl::Status& status) {
  std::string message(status.message());
  std::replace(message.begin(), message.end(), '\n', ' ');
  std::fprintf(stderr, "%s: %s\n", program.c_str(), message.c_str());
  return kRefusedToStart;
}

// Threads inherit the mask, so signals wait for whoever asks for them.
sigset_t BlockStopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

// Lives as long as the process: it may be waiting when main returns.
void StartSignalThread(sigset_t signals, std::weak_ptr<Server> server) {
  std::thread([signals, server = std::move(server)] {
    for (int count = 0;; ++count) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      const std::shared_ptr<Server> live = server.lock();
      if (live == nullptr || live->loading()) std::_Exit(0);
      if (count > 0) std::_Exit(128 + signal);
      live->Drain();
    }
  }).detach();
}

// Every request allocates and frees megabytes. By default glibc gives them back
// to the kernel each time, and the next one pays for their pages again.
void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 64 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
}

}  // namespace

std::vector<char*> ParseFlags(const std::string& usage, int argc, char** argv) {
  absl::FlagsUsageConfig help;
  help.contains_help_flags = [](absl::string_view file) {
    return !absl::StrContains(file, "absl/");
  };
  absl::SetFlagsUsageConfig(help);
  absl::SetProgramUsageMessage(usage);
  return absl::ParseCommandLine(argc, argv);
}

int RunServer(const std::string& program, Config config,
              PolicyFactory factory) {
  KeepFreedMemory();
  const sigset_t signals = BlockStopSignals();
  if (absl::Status s = OverrideByFlags(config); !s.ok()) {
    return Refuse(program, s);
  }
  Server::Options options;
  options.config = std::move(config);
  options.factory = std::move(factory);
  options.port_file = absl::GetFlag(FLAGS_port_file);
  options.ready = [](const std::string& line) {
    std::puts(line.c_str());
    std::fflush(stdout);
  };
  auto created = Server::Create(std::move(options));
  if (!created.ok()) return Refuse(program, created.status());
  const std::shared_ptr<Server> server = *std::move(created);
  StartSignalThread(signals, server);
  const absl::StatusOr<Exit> exit = server->Run();
  if (!exit.ok()) return Refuse(program, exit.status());
  // A device that hangs would hang the destructors too.
  if (server->lost_device()) std::_Exit(static_cast<int>(*exit));
  return static_cast<int>(*exit);
}

}  // namespace piserve::server
