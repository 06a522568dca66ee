// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "clients/cpp/cli/connection_flags.h"
#include "clients/cpp/cli/observation_source.h"
#include "clients/cpp/cli/operate.h"
#include "clients/cpp/cli/print.h"
#include "clients/cpp/cli/recorded.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/status.h"

ABSL_FLAG(std::vector<std::string>, image, {},
          "NAME=FILE,... of JPEG or PNG files, sent as they are, or "
          "NAME=FILE@WIDTHxHEIGHT of raw RGB8; other cameras: a test pattern");
ABSL_FLAG(std::vector<std::string>, state, {},
          "State in robot units, comma-separated; default: zeros");
ABSL_FLAG(std::optional<std::string>, prompt, std::nullopt,
          "Instruction; default: the policy's own");
ABSL_FLAG(std::string, noise_file, "",
          "Start noise, raw little-endian float32 [horizon, model action_dim]");
ABSL_FLAG(std::optional<std::uint64_t>, seed, std::nullopt,
          "Seed of the start noise");
ABSL_FLAG(std::optional<std::uint32_t>, steps, std::nullopt,
          "Euler steps; default: the policy's");
ABSL_FLAG(std::string, service, "",
          "health: service to ask about; empty: the whole server");
ABSL_FLAG(std::string, admin_address, "127.0.0.1:50053",
          "drain, log-level: the server's admin port, host:port");
ABSL_FLAG(double, tolerance, 0,
          "replay: allowed difference of an action; 0: the same bits");
ABSL_FLAG(bool, json, false, "Print JSON");

namespace piserve::client {
namespace {

constexpr char kUsage[] =
    "policy_cli: ask a piserve server\n"
    "\n"
    "  policy_cli [flags] info    what the policies take and give, as tables\n"
    "  policy_cli [flags] infer   one action chunk for one observation\n"
    "  policy_cli [flags] health  does the server serve?\n"
    "  policy_cli [flags] drain   end as on SIGTERM: answer what is accepted\n"
    "  policy_cli [flags] log-level debug|info|warn|error  until it ends;\n"
    "                             prints the one before\n"
    "  policy_cli [flags] replay FILE|FOLDER  repeat what a server recorded\n"
    "                             and compare the answers\n"
    "\n"
    "  policy_cli infer --image=observation/image=base.jpg \\\n"
    "    --state=0,0,0,0,0,0,0.04,-0.04 --prompt='pick up the bowl' --seed=1\n"
    "\n"
    "Exit code: 0 answered; 1 wrong flags or files; 2 refused by the server;\n"
    "3 no server, or it does not serve; 4 no answer in time; 5 an answer that\n"
    "differs from the recorded one.\n";

constexpr int kExitDifferent = 5;

int Fail(const absl::Status& status, int code) {
  std::fprintf(stderr, "policy_cli: %s\n", Describe(status).c_str());
  return code;
}

int RunInfo(PolicyClient& client) {
  const auto infos = client.GetPolicyInfo(PolicyFromFlags());
  if (!infos.ok()) return Fail(infos.status(), ExitCode(infos.status()));
  if (absl::GetFlag(FLAGS_json)) {
    std::fputs(InfoJson(*infos).c_str(), stdout);
    return kExitOk;
  }
  for (const v1::PolicyInfo& info : *infos) {
    std::puts(InfoText(info).c_str());
  }
  return kExitOk;
}

absl::StatusOr<ObservationIn> ObservationFromFlags(const v1::PolicyInfo& info) {
  auto observation =
      MakeObservation(info, {.images = absl::GetFlag(FLAGS_image),
                             .state = absl::GetFlag(FLAGS_state),
                             .prompt = absl::GetFlag(FLAGS_prompt)});
  if (!observation.ok()) return observation.status();
  const std::string noise_file = absl::GetFlag(FLAGS_noise_file);
  const std::optional<std::uint64_t> seed = absl::GetFlag(FLAGS_seed);
  if (!noise_file.empty() && seed.has_value()) {
    return absl::InvalidArgumentError(
        "--noise_file and --seed: got both, want at most one");
  }
  if (!noise_file.empty()) {
    auto noise = ReadNoise(noise_file, info);
    if (!noise.ok()) return noise.status();
    observation->start = *std::move(noise);
  } else if (seed.has_value()) {
    observation->start = *seed;
  }
  observation->num_steps = absl::GetFlag(FLAGS_steps);
  return observation;
}

int RunInfer(PolicyClient& client) {
  const auto info = FetchPolicyInfo(client);
  if (!info.ok()) return Fail(info.status(), ExitCode(info.status()));
  const auto observation = ObservationFromFlags(*info);
  if (!observation.ok()) return Fail(observation.status(), kExitUsage);
  const auto start = std::chrono::steady_clock::now();
  const auto chunk = client.Infer(*observation);
  const absl::Duration took =
      absl::FromChrono(std::chrono::steady_clock::now() - start);
  if (!chunk.ok()) return Fail(chunk.status(), ExitCode(chunk.status()));
  const std::string text = absl::GetFlag(FLAGS_json) ? ChunkJson(*chunk, took)
                                                     : ChunkText(*chunk, took);
  std::fputs(text.c_str(), stdout);
  return kExitOk;
}

// One word, or an object of it.
void PrintWord(const char* name, const std::string& word) {
  if (absl::GetFlag(FLAGS_json)) {
    std::printf("{\"%s\": \"%s\"}\n", name, word.c_str());
  } else {
    std::printf("%s\n", word.c_str());
  }
}

int RunHealth(const Operator& op) {
  const auto status = op.Health(absl::GetFlag(FLAGS_service));
  if (!status.ok()) return Fail(status.status(), ExitCode(status.status()));
  PrintWord("status", *status);
  return *status == "SERVING" ? kExitOk : kExitUnavailable;
}

int RunDrain(const Operator& op) {
  const absl::Status status = op.Drain();
  if (!status.ok()) return Fail(status, ExitCode(status));
  PrintWord("status", "DRAINING");
  return kExitOk;
}

int RunLogLevel(const Operator& op, const std::string& name) {
  const auto level = ParseLogLevel(name);
  if (!level.has_value()) {
    return Fail(
        absl::InvalidArgumentError(absl::StrCat(
            "log-level: got ", name, ", want debug, info, warn or error")),
        kExitUsage);
  }
  const auto before = op.SetLogLevel(*level);
  if (!before.ok()) return Fail(before.status(), ExitCode(before.status()));
  PrintWord("previous", LogLevelName(*before));
  return kExitOk;
}

// One line a call; what was refused then is not compared.
int RunReplay(PolicyClient& client, const std::string& path) {
  const auto calls = ReadRecordings(path);
  if (!calls.ok()) return Fail(calls.status(), kExitUsage);
  int different = 0, compared = 0;
  for (const RecordedCall& call : *calls) {
    const auto chunk = client.Infer(call.observation);
    if (!chunk.ok() && call.actions.has_value()) {
      return Fail(chunk.status(), ExitCode(chunk.status()));
    }
    if (!chunk.ok() || !call.actions.has_value()) {
      std::printf("%s: %s then, %s now\n", call.file.c_str(),
                  call.actions.has_value() ? "answered" : "refused",
                  chunk.ok() ? "answered" : "refused");
      continue;
    }
    const double difference = LargestDifference(*call.actions, *chunk);
    ++compared;
    different += !(difference <= absl::GetFlag(FLAGS_tolerance));
    std::printf(
        "%s: largest difference %g%s\n", call.file.c_str(), difference,
        call.model_digest == chunk->model_digest ? "" : ", another model");
  }
  std::printf("%d of %d compared answers differ by more than %g\n", different,
              compared, absl::GetFlag(FLAGS_tolerance));
  return different == 0 ? kExitOk : kExitDifferent;
}

int RunOperator(const Options& options, const std::vector<std::string>& words) {
  const auto channel = MakeChannel(options);
  if (!channel.ok()) return Fail(channel.status(), kExitUsage);
  const Operator op(*channel, options.timeout);
  if (words[0] == "health") return RunHealth(op);
  return words[0] == "drain" ? RunDrain(op) : RunLogLevel(op, words[1]);
}

int RunClient(const Options& options, const std::vector<std::string>& words) {
  const auto client = PolicyClient::Connect(options);
  if (!client.ok()) return Fail(client.status(), kExitUsage);
  if (words[0] == "replay") return RunReplay(**client, words[1]);
  return words[0] == "info" ? RunInfo(**client) : RunInfer(**client);
}

// The admin port knows no credentials: it is loopback's.
Options AdminOptions() {
  Options options;
  options.address = absl::GetFlag(FLAGS_admin_address);
  options.timeout = TimeoutFromFlags();
  return options;
}

int Run(int argc, char** argv) {
  // How many words each command takes, itself included.
  static const std::map<std::string, std::size_t> kCommands = {
      {"info", 1},   {"infer", 1}, {"health", 1},
      {"replay", 2}, {"drain", 1}, {"log-level", 2}};
  const std::vector<std::string> words =
      ParseCommandLineOrExit(kUsage, argc, argv);
  const auto command = kCommands.find(words.empty() ? "" : words[0]);
  if (command == kCommands.end() || words.size() != command->second) {
    std::fputs(kUsage, stderr);
    return kExitUsage;
  }
  if (words[0] == "drain" || words[0] == "log-level") {
    return RunOperator(AdminOptions(), words);
  }
  const auto options = OptionsFromFlags();
  if (!options.ok()) return Fail(options.status(), kExitUsage);
  return words[0] == "health" ? RunOperator(*options, words)
                              : RunClient(*options, words);
}

}  // namespace
}  // namespace piserve::client

int main(int argc, char** argv) { return piserve::client::Run(argc, argv); }
