// SPDX-License-Identifier: Apache-2.0
// The whole server with a policy that computes nothing, for load runs:
//
//   piserve_test_server --policy=noop|hash [policy_server's flags]
//
// It serves pi05_libero's observations under the name "libero".
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "server/run.h"
#include "tests/support/fake_host.h"
#include "tests/support/fake_policy.h"

ABSL_FLAG(std::string, policy, "hash",
          "noop: zero actions at once. hash: actions are a hash of the "
          "observation, a wave of B rows takes 6 + 0.5 B ms");
ABSL_FLAG(std::string, source_folder, PISERVE_SOURCE_DIR,
          "Where tests/golden is");

namespace piserve {
namespace {

absl::StatusOr<server::HostedPolicy> MakeHost(
    const server::PolicyEntry& entry) {
  const Variant variant = testing::FakeVariant();
  auto options = absl::GetFlag(FLAGS_policy) == "noop"
                     ? testing::FakePolicy::NoOp(variant)
                     : testing::FakePolicy::Hash(variant);
  return testing::HostOf(
      entry.name, std::make_unique<testing::FakePolicy>(std::move(options)),
      absl::GetFlag(FLAGS_source_folder));
}

server::Config TestConfig() {
  server::Config config;
  config.policies.emplace_back();
  config.policies.back().name = "libero";
  config.decode_workers = 2;
  return config;
}

}  // namespace
}  // namespace piserve

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("Serves a policy that computes nothing.");
  absl::ParseCommandLine(argc, argv);
  const std::string policy = absl::GetFlag(FLAGS_policy);
  if (policy != "noop" && policy != "hash") {
    std::fprintf(stderr, "piserve_test_server: policy: want noop or hash\n");
    return 1;
  }
  return piserve::server::RunServer("piserve_test_server",
                                    piserve::TestConfig(), piserve::MakeHost);
}
