// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "clients/cpp/cli/connection_flags.h"
#include "clients/cpp/cli/observation_source.h"
#include "clients/cpp/load/load_run.h"
#include "clients/cpp/load/plot.h"
#include "clients/cpp/load/report.h"
#include "clients/cpp/load/transport.h"
#include "clients/cpp/load/verifier.h"
#include "clients/cpp/piserve/client.h"

ABSL_FLAG(int, robots, 8, "Number of robots");
ABSL_FLAG(double, rate, 2.0,
          "Requests a second of each robot; closed loop: at most (0: as fast "
          "as answers come)");
ABSL_FLAG(std::string, loop, "open",
          "open: send on time whatever the answers do; closed: wait for the "
          "answer first");
ABSL_FLAG(absl::Duration, duration, absl::Seconds(10), "Measured time");
ABSL_FLAG(absl::Duration, warmup, absl::Seconds(1), "Load before that");
ABSL_FLAG(std::string, call, "unary", "unary or stream");
ABSL_FLAG(std::string, connections, "own",
          "own: one for each robot; shared: one for all");
ABSL_FLAG(int, max_in_flight, 512, "Unanswered requests before sending waits");
ABSL_FLAG(std::string, verify, "none",
          "hash: the server runs the hash policy of the tests; alone: each "
          "answer must equal that of its observation alone, asked before");
ABSL_FLAG(double, tolerance, 0.0,
          "verify=alone, recording: allowed difference of an action");
ABSL_FLAG(std::string, recording, "",
          "File or folder of a server's recordings: their observations are "
          "sent, and answers compared with theirs");
ABSL_FLAG(std::vector<std::string>, image, {},
          "NAME=FILE,... as for policy_cli, the same for every robot; other "
          "cameras: a test pattern for each robot");
ABSL_FLAG(int, width, 224, "Width of test patterns, px");
ABSL_FLAG(int, height, 224, "Height of test patterns, px");
ABSL_FLAG(std::optional<std::string>, prompt, std::nullopt, "Instruction");
ABSL_FLAG(std::optional<std::uint32_t>, steps, std::nullopt, "Euler steps");
ABSL_FLAG(std::string, json, "", "File for the report as JSON; -: stdout");
ABSL_FLAG(std::string, plot, "", "File for a plot (PNG); needs gnuplot");

namespace piserve::load {
namespace {

constexpr int kExitWrongAnswers = 5;
// Hz. No client sends as fast, and a schedule without a period has no end.
constexpr double kMaxRate = 1e6;

constexpr char kUsage[] =
    "policy_load: put a piserve server under load\n"
    "\n"
    "  policy_load --robots=64 --rate=10 --duration=60s\n"
    "  policy_load --robots=8 --loop=closed --rate=0 --call=stream\n"
    "  policy_load --verify=alone --json=load.json --plot=load.png\n"
    "\n"
    "Latency counts from the time at which a robot meant to send, so a stall\n"
    "shows in every request that it held up. Nothing is retried.\n"
    "\n"
    "Exit code: 0 done; 1 wrong flags or files; 2 no request answered OK;\n"
    "3 no server; 4 no answer in time; 5 a wrong or lost answer.\n";

struct Settings {
  LoadRun::Options run;
  Call call = Call::kUnary;
  Connections connections = Connections::kOwn;
  std::string title;
};

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "policy_load: %s\n", client::Describe(status).c_str());
  return code;
}

// One of two words.
template <typename T>
absl::Status Choose(const absl::Flag<std::string>& flag, const char* name,
                    std::pair<const char*, T> a, std::pair<const char*, T> b,
                    T* out) {
  const std::string word = absl::GetFlag(flag);
  if (word != a.first && word != b.first) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--", name, ": got '", word, "', want ", a.first, " or ", b.first));
  }
  *out = word == a.first ? a.second : b.second;
  return absl::OkStatus();
}

absl::Status CheckNumbers(const Settings& settings) {
  const double rate = absl::GetFlag(FLAGS_rate);
  const Schedule::Options& schedule = settings.run.schedule;
  if (schedule.robots < 1 || settings.run.max_in_flight < 1) {
    return absl::InvalidArgumentError(
        "--robots and --max_in_flight: want at least 1");
  }
  if (!(rate >= 0 && rate <= kMaxRate) ||
      (rate == 0 && schedule.loop == Loop::kOpen)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--rate: got ", rate, ", want more than 0, at most ", kMaxRate));
  }
  if (absl::GetFlag(FLAGS_duration) <= absl::ZeroDuration() ||
      settings.run.warmup < absl::ZeroDuration() ||
      schedule.end == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        "--duration: want more than 0; --warmup: want at least 0; both: want "
        "an end");
  }
  return absl::OkStatus();
}

absl::StatusOr<Settings> SettingsFromFlags(const client::Options& options) {
  Settings settings;
  Schedule::Options& schedule = settings.run.schedule;
  absl::Status status = Choose<Loop>(FLAGS_loop, "loop", {"open", Loop::kOpen},
                                     {"closed", Loop::kClosed}, &schedule.loop);
  status.Update(Choose<Call>(FLAGS_call, "call", {"unary", Call::kUnary},
                             {"stream", Call::kStream}, &settings.call));
  status.Update(Choose<Connections>(
      FLAGS_connections, "connections", {"own", Connections::kOwn},
      {"shared", Connections::kShared}, &settings.connections));
  const double rate = absl::GetFlag(FLAGS_rate);
  schedule.robots = absl::GetFlag(FLAGS_robots);
  schedule.period = rate > 0 ? absl::Seconds(1) / rate : absl::ZeroDuration();
  settings.run.warmup = absl::GetFlag(FLAGS_warmup);
  schedule.end = settings.run.warmup + absl::GetFlag(FLAGS_duration);
  settings.run.timeout = options.timeout;
  settings.run.max_in_flight = absl::GetFlag(FLAGS_max_in_flight);
  status.Update(CheckNumbers(settings));
  if (!status.ok()) return status;
  settings.title = absl::StrFormat(
      "%s: %d robots at %g Hz, %s loop, %s calls, %s connections, %s after %s "
      "of warm-up",
      options.address, schedule.robots, rate, absl::GetFlag(FLAGS_loop),
      absl::GetFlag(FLAGS_call), absl::GetFlag(FLAGS_connections),
      absl::FormatDuration(absl::GetFlag(FLAGS_duration)),
      absl::FormatDuration(settings.run.warmup));
  return settings;
}

// Each robot sees its own pattern and has its own state, on the grid of
// row_hash.h.
absl::StatusOr<std::vector<client::ObservationIn>> MakeObservations(
    const v1::PolicyInfo& info, int robots) {
  std::vector<client::ObservationIn> observations;
  for (int robot = 0; robot < robots; ++robot) {
    auto observation = client::MakeObservation(
        info, {.images = absl::GetFlag(FLAGS_image),
               .state = {},
               .prompt = absl::GetFlag(FLAGS_prompt),
               .pattern_width = absl::GetFlag(FLAGS_width),
               .pattern_height = absl::GetFlag(FLAGS_height),
               .variation = static_cast<std::uint64_t>(robot)});
    if (!observation.ok()) return observation.status();
    for (std::size_t i = 0; i < observation->state.size(); ++i) {
      observation->state[i] =
          (static_cast<int>((7 * robot + 13 * i) % 129) - 64) / 64.0;
    }
    observation->num_steps = absl::GetFlag(FLAGS_steps);
    observations.push_back(*std::move(observation));
  }
  return observations;
}

// Null where nothing is to be verified.
absl::StatusOr<std::unique_ptr<Verifier>> MakeVerifier(
    const v1::PolicyInfo& info, client::PolicyClient& client,
    std::vector<client::ObservationIn>* observations) {
  const std::string recording = absl::GetFlag(FLAGS_recording);
  if (!recording.empty()) {
    auto calls = client::ReadRecordings(recording);
    if (!calls.ok()) return calls.status();
    return MakeRecordingVerifier(*std::move(calls),
                                 absl::GetFlag(FLAGS_tolerance));
  }
  const std::string verify = absl::GetFlag(FLAGS_verify);
  if (verify == "none") return nullptr;
  if (verify == "hash") return MakeHashVerifier(info, *observations);
  if (verify == "alone") {
    return MakeAloneVerifier(client, absl::GetFlag(FLAGS_tolerance),
                             observations);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--verify: got '", verify, "', want none, hash or alone"));
}

// For the status of MakeVerifier, which asks the server for "alone" only.
int VerifierExitCode(const absl::Status& status) {
  const bool asked = absl::GetFlag(FLAGS_recording).empty() &&
                     absl::GetFlag(FLAGS_verify) == "alone";
  return asked ? client::ExitCode(status) : client::kExitUsage;
}

absl::Status WriteFile(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::fputs(text.c_str(), stdout);
    return absl::OkStatus();
  }
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return file ? absl::OkStatus()
              : absl::InternalError(absl::StrCat(path, ": cannot be written"));
}

int Publish(const LoadResult& result, const Settings& settings, bool verified) {
  const Report report = MakeReport(result, settings.title, settings.run.warmup,
                                   settings.run.schedule.end, verified);
  const std::string json = absl::GetFlag(FLAGS_json);
  if (json != "-") std::fputs(ReportText(report).c_str(), stdout);
  absl::Status status;
  if (!json.empty()) status.Update(WriteFile(json, ReportJson(report)));
  if (const std::string plot = absl::GetFlag(FLAGS_plot); !plot.empty()) {
    status.Update(RunGnuplot(
        PlotScript(result, settings.title, settings.run.warmup, plot)));
  }
  const bool wrong = report.wrong > 0 || report.lost > 0;
  if (!status.ok()) {
    return Fail(status, wrong ? kExitWrongAnswers : client::kExitUsage);
  }
  if (wrong) return kExitWrongAnswers;
  return report.ok_ms.count > 0 ? client::kExitOk : client::kExitRefused;
}

int RunLoad(const client::Options& options, const Settings& settings) {
  const auto client = client::PolicyClient::Connect(options);
  if (!client.ok()) return Fail(client.status(), client::kExitUsage);
  const auto info = client::FetchPolicyInfo(**client);
  if (!info.ok()) return Fail(info.status(), client::ExitCode(info.status()));
  auto observations = MakeObservations(*info, settings.run.schedule.robots);
  if (!observations.ok()) {
    return Fail(observations.status(), client::kExitUsage);
  }
  const auto verifier = MakeVerifier(*info, **client, &*observations);
  if (!verifier.ok()) {
    return Fail(verifier.status(), VerifierExitCode(verifier.status()));
  }
  auto transports = MakeTransports(options, settings.call, settings.connections,
                                   settings.run.schedule.robots);
  if (!transports.ok()) {
    return Fail(transports.status(), client::ExitCode(transports.status()));
  }
  LoadRun run(settings.run, *std::move(transports), *std::move(observations),
              verifier->get());
  return Publish(run.Run(), settings, *verifier != nullptr);
}

int Run(int argc, char** argv) {
  const std::vector<std::string> words =
      client::ParseCommandLineOrExit(kUsage, argc, argv);
  if (!words.empty()) {
    std::fputs(kUsage, stderr);
    return client::kExitUsage;
  }
  std::signal(SIGPIPE, SIG_IGN);  // a gnuplot that went away
  const auto options = client::OptionsFromFlags();
  if (!options.ok()) return Fail(options.status(), client::kExitUsage);
  const auto settings = SettingsFromFlags(*options);
  if (!settings.ok()) return Fail(settings.status(), client::kExitUsage);
  return RunLoad(*options, *settings);
}

}  // namespace
}  // namespace piserve::load

int main(int argc, char** argv) { return piserve::load::Run(argc, argv); }
