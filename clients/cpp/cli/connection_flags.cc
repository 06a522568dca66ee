// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/cli/connection_flags.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "absl/flags/commandlineflag.h"
#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/reflection.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "clients/cpp/cli/observation_source.h"
#include "clients/cpp/piserve/status.h"

ABSL_FLAG(std::string, address, "127.0.0.1:50051", "Server, host:port");
ABSL_FLAG(std::string, policy, "", "Name of the policy; empty: the only one");
ABSL_FLAG(absl::Duration, timeout, absl::Seconds(5),
          "Budget of a call, a retry included");
ABSL_FLAG(bool, tls, false, "Use TLS with the system's root certificates");
ABSL_FLAG(std::string, tls_root, "",
          "Root certificates (PEM) to trust instead; switches TLS on");
ABSL_FLAG(std::string, tls_cert, "", "Client certificate (PEM), mutual TLS");
ABSL_FLAG(std::string, tls_key, "", "Client key (PEM), mutual TLS");
ABSL_FLAG(std::string, tls_name, "", "Name in the server's certificate");
ABSL_FLAG(std::string, api_key_file, "",
          "File with the API key; default: the variable PISERVE_API_KEY");

namespace piserve::client {
namespace {

// Reads the file that a flag names into `content`; nothing for an empty name.
absl::Status ReadInto(const std::string& path, std::string* content) {
  if (path.empty()) return absl::OkStatus();
  auto data = ReadFile(path);
  if (!data.ok()) return data.status();
  *content = *std::move(data);
  return absl::OkStatus();
}

absl::Status ReadTls(Options* options) {
  const std::string root = absl::GetFlag(FLAGS_tls_root);
  const std::string cert = absl::GetFlag(FLAGS_tls_cert);
  const std::string key = absl::GetFlag(FLAGS_tls_key);
  const std::string name = absl::GetFlag(FLAGS_tls_name);
  if (cert.empty() != key.empty()) {
    return absl::InvalidArgumentError(
        cert.empty() ? "--tls_key: got one alone, want --tls_cert too"
                     : "--tls_cert: got one alone, want --tls_key too");
  }
  if (!absl::GetFlag(FLAGS_tls) && root.empty() && cert.empty()) {
    if (name.empty()) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "--tls_name: got one without TLS, want --tls or --tls_root too");
  }
  TlsOptions& tls = options->tls.emplace();
  tls.server_name = name;
  absl::Status status = ReadInto(root, &tls.root_certificates);
  status.Update(ReadInto(cert, &tls.client_certificate));
  status.Update(ReadInto(key, &tls.client_key));
  return status;
}

[[noreturn]] void HelpAndExit(const std::string& usage) {
  std::fputs(usage.c_str(), stdout);
  std::puts("\nFlags:");
  std::map<std::string, const absl::CommandLineFlag*> own;
  for (const auto& [name, flag] : absl::GetAllFlags()) {
    if (absl::StrContains(flag->Filename(), "clients/cpp/")) {
      own[std::string(name)] = flag;
    }
  }
  for (const auto& [name, flag] : own) {
    const std::string value = flag->DefaultValue();
    std::printf("  --%s%s%s\n      %s\n", name.c_str(),
                value.empty() ? "" : "=", value.c_str(), flag->Help().c_str());
  }
  std::exit(kExitOk);
}

bool HasWord(const std::vector<std::string>& words, const char* word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return kExitOk;
    case absl::StatusCode::kUnavailable:
      return kExitUnavailable;
    case absl::StatusCode::kDeadlineExceeded:
      return kExitDeadline;
    default:
      return kExitRefused;
  }
}

absl::StatusOr<Options> OptionsFromFlags() {
  Options options;
  options.address = absl::GetFlag(FLAGS_address);
  options.timeout = TimeoutFromFlags();
  if (const char* key = std::getenv("PISERVE_API_KEY")) options.api_key = key;
  absl::Status status =
      ReadInto(absl::GetFlag(FLAGS_api_key_file), &options.api_key);
  absl::StripTrailingAsciiWhitespace(&options.api_key);
  status.Update(ReadTls(&options));
  if (!status.ok()) return status;
  return options;
}

absl::Duration TimeoutFromFlags() { return absl::GetFlag(FLAGS_timeout); }

std::string PolicyFromFlags() { return absl::GetFlag(FLAGS_policy); }

absl::StatusOr<v1::PolicyInfo> FetchPolicyInfo(PolicyClient& client) {
  const auto infos = client.GetPolicyInfo(PolicyFromFlags());
  if (!infos.ok()) return infos.status();
  if (infos->size() == 1) return infos->front();
  if (infos->empty()) {
    return absl::PermissionDeniedError(
        "no policy here that this credential may use");
  }
  std::string names;
  for (const v1::PolicyInfo& info : *infos) {
    absl::StrAppend(&names, names.empty() ? "" : ", ", info.name());
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--policy: got none, want one of ", names));
}

std::vector<std::string> ParseCommandLineOrExit(const std::string& usage,
                                                int argc, char** argv) {
  const std::vector<std::string> all(argv + 1, argv + argc);
  if (HasWord(all, "--help") || HasWord(all, "-h")) HelpAndExit(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  std::vector<std::string> words(rest.begin() + 1, rest.end());
  if (HasWord(words, "help")) HelpAndExit(usage);
  return words;
}

std::string Describe(const absl::Status& status) {
  std::string text = absl::StrCat(absl::StatusCodeToString(status.code()), ": ",
                                  absl::string_view(status.message()));
  if (const std::string reason = ErrorReason(status); !reason.empty()) {
    absl::StrAppend(&text, "\n  reason: ", reason);
  }
  if (const std::string field = ErrorField(status); !field.empty()) {
    absl::StrAppend(&text, "\n  field: ", field);
  }
  if (const auto delay = RetryAfter(status); delay.has_value()) {
    absl::StrAppend(&text, "\n  retry after: ", absl::FormatDuration(*delay));
  }
  return text;
}

}  // namespace piserve::client
