// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "clients/cpp/piserve/clock.h"
#include "clients/cpp/piserve/infer_stub.h"
#include "clients/cpp/piserve/observation.h"
#include "clients/cpp/piserve/policy_check.h"
#include "clients/cpp/piserve/stream.h"
#include "grpcpp/channel.h"
#include "piserve/v1/policy.grpc.pb.h"

namespace piserve::client {

struct TlsOptions {
  std::string root_certificates;   // PEM; empty: the system's
  std::string client_certificate;  // PEM; for mutual TLS, with client_key
  std::string client_key;          // PEM
  std::string server_name;         // if the certificate names another host
};

struct Options {
  std::string address;  // host:port, or any name that gRPC resolves
  // Sent as `authorization: Bearer <key>` with every call. Needs TLS, unless
  // the address is localhost, 127.x.y.z, [::1] or a unix socket.
  std::string api_key;
  std::optional<TlsOptions> tls;  // absent: plain text
  absl::Duration timeout = absl::Seconds(5);
  Clock* clock = &Clock::Steady();  // not owned
  // A policy that is another one is refused, with FAILED_PRECONDITION, before
  // an observation is sent to it.
  Expectation expect = {};
};

// A channel as `options` asks for it, for callers who want the bare stub. Does
// not connect yet. INVALID_ARGUMENT if the options make no sense.
absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const Options& options);

// Asks a piserve server for action chunks.
//
// Every call has a deadline. A call that ends UNAVAILABLE, or
// RESOURCE_EXHAUSTED with RetryInfo, is tried once more after the server's
// delay if that fits the deadline. An answer that is late, not finite or of
// another request is an error and never a chunk. A lost connection is made anew
// by the next call.
//
// Errors are the server's status with its details; status.h reads reason, field
// and retry delay. Thread-safe.
class PolicyClient {
 public:
  // Does not wait for the connection: the first call does.
  static absl::StatusOr<std::unique_ptr<PolicyClient>> Connect(Options options);

  // Blocks until the answer or the deadline. The first call for a policy asks
  // the server what it is; a policy that is not the one expected, and
  // observations that do not fit, are refused here. When another model took its
  // place meanwhile, so it is asked again before the answer is handed out, and
  // by the next call after INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION or
  // UNAVAILABLE.
  absl::StatusOr<ActionChunk> Infer(const ObservationIn& observation,
                                    const CallOptions& call = {});

  // The policies hosted now, or the one named.
  absl::StatusOr<std::vector<v1::PolicyInfo>> GetPolicyInfo(
      const std::string& policy = "", const CallOptions& call = {});

  // A stream for many observations in flight. Observations are checked against
  // the policies hosted when the stream was opened: where others may have taken
  // their place, open anew.
  absl::StatusOr<std::unique_ptr<PolicyStream>> OpenStream(
      const CallOptions& call = {});

 private:
  using Attempt = std::function<absl::Status(grpc::ClientContext*)>;

  PolicyClient(Options options, std::shared_ptr<grpc::Channel> channel);

  Clock::TimePoint Deadline(const CallOptions& call);
  // Runs `attempt`, and again as far as the rules and `attempts` allow.
  absl::Status RunWithRetry(Clock::TimePoint deadline, int attempts,
                            const Attempt& attempt);
  absl::StatusOr<ActionChunk> InferUntil(Clock::TimePoint deadline,
                                         const ObservationIn& observation,
                                         int attempts);
  // What the observation's policy is, if both are fit for each other.
  absl::StatusOr<v1::PolicyInfo> Check(const ObservationIn& observation,
                                       Clock::TimePoint deadline);
  absl::StatusOr<v1::PolicyInfo> InfoFor(const std::string& policy,
                                         Clock::TimePoint deadline);
  absl::StatusOr<std::vector<v1::PolicyInfo>> FetchInfo(
      const std::string& policy, Clock::TimePoint deadline);
  void ForgetInfo(const std::string& policy);

  const Options options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::PolicyService::Stub> stub_;
  InferStub infer_stub_;
  absl::Mutex mutex_;
  std::map<std::string, v1::PolicyInfo> infos_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace piserve::client
