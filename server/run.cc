// SPDX-License-Identifier: Apache-2.0
#include "server/run.h"

#include <malloc.h>
#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/flags/usage.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "batching/clock.h"
#include "server/address.h"

ABSL_FLAG(std::string, public_address, "", "PolicyService: host:port");
ABSL_FLAG(std::string, probe_address, "", "Health alone, plain: host:port");
ABSL_FLAG(std::string, admin_address, "", "Administration: loopback host:port");
ABSL_FLAG(std::string, http_address, "", "Metrics and status: host:port");
ABSL_FLAG(std::string, websocket_address, "",
          "openpi's websocket wire, off without: host:port");
ABSL_FLAG(std::optional<int>, port, std::nullopt, "Port of the public address");
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

// What is wrong with a flag's value, under the name that its user knows.
absl::Status BadFlag(absl::string_view name, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("--", name, ": ", message));
}

absl::Status OverrideAddress(const absl::Flag<std::string>& flag,
                             std::string& to) {
  const std::string value = absl::GetFlag(flag);
  if (value.empty()) return absl::OkStatus();
  const absl::StatusOr<HostPort> parsed = ParseAddress(value);
  if (!parsed.ok()) {
    return BadFlag(absl::GetFlagReflectionHandle(flag).Name(),
                   parsed.status().message());
  }
  to = value;
  return absl::OkStatus();
}

absl::Status OverridePort(std::string& address) {
  const std::optional<int> port = absl::GetFlag(FLAGS_port);
  if (!port.has_value()) return absl::OkStatus();
  if (*port < 0 || *port > 65535) {
    return BadFlag("port", absl::StrCat("got ", *port, ", want 0 to 65535"));
  }
  address = absl::StrCat(address.substr(0, address.rfind(':')), ":", *port);
  return absl::OkStatus();
}

absl::Status OverrideAddresses(ListenerConfig& to) {
  absl::Status status = OverrideAddress(FLAGS_public_address, to.grpc);
  status.Update(OverrideAddress(FLAGS_probe_address, to.probe));
  status.Update(OverrideAddress(FLAGS_admin_address, to.admin));
  status.Update(OverrideAddress(FLAGS_http_address, to.http));
  status.Update(OverrideAddress(FLAGS_websocket_address, to.websocket));
  if (status.ok()) status.Update(OverridePort(to.grpc));
  return status;
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
  return BadFlag(
      "log_level",
      absl::StrCat("got \"", name, "\", want debug, info, warn or error"));
}

absl::Status OverrideByFlags(Config& config) {
  if (absl::Status s = OverrideAddresses(config.listeners); !s.ok()) return s;
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

// Whoever stops a process group may signal a process twice, at once.
constexpr absl::Duration kOneStop = absl::Seconds(1);

// Lives as long as the process: it may be waiting when main returns.
void StartSignalThread(sigset_t signals, std::weak_ptr<Server> server) {
  std::thread([signals, server = std::move(server)] {
    const batching::Clock& clock = batching::Clock::Real();
    absl::Time again = absl::InfiniteFuture();  // from when on is no twin
    for (;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0) continue;
      const std::shared_ptr<Server> live = server.lock();
      if (live == nullptr || live->loading()) std::_Exit(0);
      if (clock.Now() >= again) std::_Exit(128 + signal);
      again = std::min(again, clock.Now() + kOneStop);
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

// Absl's own help ends with 1, and lists the flags that every program has.
[[noreturn]] void HelpAndExit(const std::string& usage) {
  std::map<absl::string_view, const absl::CommandLineFlag*> own;
  for (const auto& [name, flag] : absl::GetAllFlags()) own[name] = flag;
  for (const char* common : {"flagfile", "fromenv", "tryfromenv", "undefok"}) {
    own.erase(common);
  }
  std::printf("%s\n\nFlags:\n", usage.c_str());
  for (const auto& [name, flag] : own) {
    const std::string value = flag->DefaultValue();
    std::printf("  --%s%s%s\n      %s\n", std::string(name).c_str(),
                value.empty() ? "" : "=", value.c_str(), flag->Help().c_str());
  }
  std::exit(0);
}

}  // namespace

std::vector<char*> ParseFlags(const std::string& usage, int argc, char** argv) {
  if (std::any_of(argv + 1, argv + argc, [](absl::string_view word) {
        return word == "--help" || word == "-h";
      })) {
    HelpAndExit(usage);
  }
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
