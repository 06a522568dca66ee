// SPDX-License-Identifier: Apache-2.0
// The whole server with a policy that computes nothing, for load runs:
//
//   piserve_test_server --policy=noop|hash|blind [policy_server's flags]
//
//   noop  zero actions at once, for ALOHA's three views (pi0_aloha)
//   hash  actions are a hash of the observation, for LIBERO's two views
//         (pi05_libero); a wave of B rows takes 6 + 0.5 B ms
//   blind the same, blind to the noise; for the robot of --policy_config, a
//         row of Pi0.5
//
// Further flags make it slow, faulty or narrow, so that a test sees each way in
// which a server says no. With --stall_file=PATH no wave ends while that file
// exists, as if the device had stalled; also not at shutdown. With --gpu the
// policy says that it runs on a GPU, and beside it is one, "lost", whose GPU
// has failed: a request must name its policy then.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/run.h"
#include "tests/support/fake_host.h"
#include "tests/support/fake_policy.h"

ABSL_FLAG(std::string, policy, "hash", "noop, hash or blind");
ABSL_FLAG(std::string, policy_config, "pi05_libero", "Of the blind policy");
ABSL_FLAG(std::string, stall_file, "", "While it exists no wave ends");
ABSL_FLAG(bool, gpu, false, "On a GPU, beside one that has failed");
ABSL_FLAG(absl::Duration, load_time, absl::ZeroDuration(),
          "What loading the policy takes");
ABSL_FLAG(std::optional<absl::Duration>, wave_time, std::nullopt,
          "What each wave takes instead");
ABSL_FLAG(std::optional<absl::Duration>, predicted_time, std::nullopt,
          "What is predicted for each wave instead");
ABSL_FLAG(std::optional<int>, waves_before_fault, std::nullopt,
          "The device fails after that many waves");
ABSL_FLAG(std::optional<int>, max_rows, std::nullopt, "The only batch size");
ABSL_FLAG(std::optional<int>, rows_per_client, std::nullopt,
          "Limit of waiting rows of one client");
ABSL_FLAG(std::optional<absl::Duration>, predicted_limit, std::nullopt,
          "Limit of predicted time in the queue");
ABSL_FLAG(std::string, source_folder, PISERVE_SOURCE_DIR,
          "Where tests/golden is");

namespace piserve {
namespace {

constexpr char kLost[] = "lost";  // the policy on the GPU that has failed

bool IsNoOp() { return absl::GetFlag(FLAGS_policy) == "noop"; }
bool IsBlind() { return absl::GetFlag(FLAGS_policy) == "blind"; }

std::string PolicyConfigName() {
  return IsNoOp()    ? "pi0_aloha"
         : IsBlind() ? absl::GetFlag(FLAGS_policy_config)
                     : "pi05_libero";
}

testing::FakePolicy::Options OptionsOf(const Variant& variant) {
  return IsNoOp()    ? testing::FakePolicy::NoOp(variant)
         : IsBlind() ? testing::FakePolicy::Blind(variant)
                     : testing::FakePolicy::Hash(variant);
}

// No row is done while `file` exists.
void StallWhileThereIs(const std::string& file,
                       testing::FakePolicy::Options& options) {
  options.act = [file, act = std::move(options.act)](const SlotRow& row,
                                                     std::span<float> actions) {
    std::error_code error;
    while (std::filesystem::exists(file, error)) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return act != nullptr ? act(row, actions) : absl::OkStatus();
  };
}

// A GPU of 80 GB that draws 500 W.
DeviceFacts GpuFacts() {
  DeviceFacts facts;
  facts.memory = {.weights = 7e9, .buffers = 2e9, .free = 70e9, .total = 80e9};
  facts.graphs = {{.stage = "vision", .rows = 8, .steps = "none"},
                  {.stage = "prefill", .rows = 8, .steps = "none"},
                  {.stage = "denoise", .rows = 8, .steps = "later"}};
  facts.energy = [start = absl::Now()] {
    return 500 * absl::ToDoubleSeconds(absl::Now() - start);
  };
  return facts;
}

void OverrideByFlags(testing::FakePolicy::Options& options) {
  if (const auto time = absl::GetFlag(FLAGS_wave_time)) {
    options.duration = [time = *time](int) { return time; };
  }
  if (const auto time = absl::GetFlag(FLAGS_predicted_time)) {
    options.predicted = [time = *time](int) { return time; };
  }
  if (const auto rows = absl::GetFlag(FLAGS_max_rows)) {
    options.batch_sizes = {*rows};
  }
  options.waves_before_fault = absl::GetFlag(FLAGS_waves_before_fault);
  if (absl::GetFlag(FLAGS_gpu)) options.device_facts = GpuFacts();
}

std::unique_ptr<testing::FakePolicy> MakePolicy(
    testing::FakePolicy::Options options, bool lost) {
  auto policy = std::make_unique<testing::FakePolicy>(std::move(options));
  if (lost) policy->Break();
  return policy;
}

absl::StatusOr<server::HostedPolicy> MakeHost(
    const server::PolicyEntry& entry) {
  absl::SleepFor(absl::GetFlag(FLAGS_load_time));
  Variant variant = testing::FakeVariant();
  if (IsNoOp()) {
    variant.pi05 = false;
    variant.max_token_len = Pi0Variant().max_token_len;
  }
  auto options = OptionsOf(variant);
  options.stages = {{"vision", 0.3}, {"prefill", 0.3}, {"denoise", 0.4}};
  const std::string stall_file = absl::GetFlag(FLAGS_stall_file);
  if (!stall_file.empty()) StallWhileThereIs(stall_file, options);
  OverrideByFlags(options);
  const bool lost = entry.name == kLost;
  auto host =
      testing::HostOf(entry.name, MakePolicy(std::move(options), lost),
                      absl::GetFlag(FLAGS_source_folder), PolicyConfigName());
  if (lost) host.device = "cuda:1";
  return host;
}

server::Config TestConfig() {
  server::Config config;
  config.policies.emplace_back();
  config.policies.back().name = IsNoOp() ? "aloha" : "libero";
  if (absl::GetFlag(FLAGS_gpu)) {
    config.policies.emplace_back();
    config.policies.back().name = kLost;
  }
  config.decode_workers = 2;
  server::LimitsConfig& limits = config.limits;
  limits.rows_per_client =
      absl::GetFlag(FLAGS_rows_per_client).value_or(limits.rows_per_client);
  limits.predicted =
      absl::GetFlag(FLAGS_predicted_limit).value_or(limits.predicted);
  return config;
}

}  // namespace
}  // namespace piserve

int main(int argc, char** argv) {
  piserve::server::ParseFlags("Serves a policy that computes nothing.", argc,
                              argv);
  const std::string policy = absl::GetFlag(FLAGS_policy);
  if (policy != "noop" && policy != "hash" && policy != "blind") {
    std::fprintf(stderr,
                 "piserve_test_server: policy: want noop, hash or blind\n");
    return 1;
  }
  return piserve::server::RunServer("piserve_test_server",
                                    piserve::TestConfig(), piserve::MakeHost);
}
