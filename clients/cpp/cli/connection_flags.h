// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cpp/piserve/client.h"

namespace piserve::client {

// How the programs end.
inline constexpr int kExitOk = 0;
inline constexpr int kExitUsage = 1;        // flags or files; nothing was sent
inline constexpr int kExitRefused = 2;      // by the server, with a status
inline constexpr int kExitUnavailable = 3;  // no server, or it does not serve
inline constexpr int kExitDeadline = 4;     // no answer in time

// For the status of a call.
int ExitCode(const absl::Status& status);

// The flags that every client program has: --address, --tls and its files,
// --api_key_file (or the environment's PISERVE_API_KEY), --timeout, --policy.
absl::StatusOr<Options> OptionsFromFlags();

// --timeout.
absl::Duration TimeoutFromFlags();

// --policy.
std::string PolicyFromFlags();

// The description of --policy, or of the only policy hosted.
absl::StatusOr<v1::PolicyInfo> FetchPolicyInfo(PolicyClient& client);

// Parses the command line and returns the words that are no flags. `--help`, or
// `help` among those words, prints `usage` and the program's own flags and
// exits with 0; a wrong flag exits with kExitUsage.
std::vector<std::string> ParseCommandLineOrExit(const std::string& usage,
                                                int argc, char** argv);

// An error as a user reads it: code, message, reason, field, retry delay.
std::string Describe(const absl::Status& status);

}  // namespace piserve::client
