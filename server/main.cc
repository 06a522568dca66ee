// SPDX-License-Identifier: Apache-2.0
// policy_server --config FILE [flags that override it]
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "server/config.h"
#include "server/run.h"

ABSL_FLAG(std::string, config, "",
          "Text-format file; server/config.proto lists every setting");

int main(int argc, char** argv) {
  const auto rest = piserve::server::ParseFlags(
      "Serves Pi0 and Pi0.5 policies over gRPC.\n"
      "policy_server --config=deploy/config/pi0_libero_tiny.textproto",
      argc, argv);
  if (rest.size() > 1 || absl::GetFlag(FLAGS_config).empty()) {
    std::fputs("policy_server: want --config=FILE and no other arguments\n",
               stderr);
    return 1;
  }
  auto config = piserve::server::LoadConfig(absl::GetFlag(FLAGS_config));
  if (!config.ok()) {
    std::fprintf(stderr, "policy_server: %s\n",
                 std::string(config.status().message()).c_str());
    return 1;
  }
  return piserve::server::RunServer("policy_server", *std::move(config),
                                    piserve::server::LoadPolicy);
}
