// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/client.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "clients/cpp/piserve/codec.h"
#include "clients/cpp/piserve/context.h"
#include "clients/cpp/piserve/observation_check.h"
#include "clients/cpp/piserve/retry.h"
#include "clients/cpp/piserve/status.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace piserve::client {
namespace {

// Replies are a few kilobytes; the server sends at most this.
constexpr int kMaxReceiveBytes = 1 << 20;
constexpr int kMaxAttempts = 2;

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Options& options) {
  if (!options.tls.has_value()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials(
      {.pem_root_certs = options.tls->root_certificates,
       .pem_private_key = options.tls->client_key,
       .pem_cert_chain = options.tls->client_certificate});
}

// Before its port and the port, which may be none; a resolver's scheme stays
// and makes it no host.
struct HostPort {
  std::string host;
  absl::string_view port;
};

HostPort Split(absl::string_view address) {
  const std::size_t colon = address.find_last_not_of("0123456789");
  if (colon == absl::string_view::npos || address[colon] != ':') {
    return {std::string(address), ""};
  }
  return {std::string(address.substr(0, colon)), address.substr(colon + 1)};
}

// gRPC takes any number modulo 2^16.
bool HasImpossiblePort(absl::string_view address) {
  const absl::string_view port = Split(address).port;
  if (port.empty() || absl::StartsWith(address, "unix:") ||
      absl::StartsWith(address, "unix-abstract:")) {
    return false;
  }
  int number = 0;
  return !absl::SimpleAtoi(port, &number) || number < 1 || number > 65535;
}

// On this machine, where nobody listens between client and server.
bool IsLocal(absl::string_view address) {
  if (absl::StartsWith(address, "unix:")) return true;
  const std::string host = Split(address).host;
  in_addr v4;
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) {
    return (ntohl(v4.s_addr) >> 24) == 127;
  }
  return host == "localhost" || host == "[::1]";
}

// What another policy in the known one's place may answer, or make of a call.
bool MayBeAnotherPolicy(const absl::Status& status) {
  return absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
         absl::IsFailedPrecondition(status) || absl::IsUnavailable(status);
}

absl::Status LateReply(absl::Duration late) {
  return WithReason(absl::DeadlineExceededError(absl::StrCat(
                        "the answer came ", absl::FormatDuration(late),
                        " after the deadline")),
                    kReasonLateReply);
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> MakeChannel(
    const Options& options) {
  if (options.address.empty()) {
    return absl::InvalidArgumentError("address: got none, want host:port");
  }
  if (HasImpossiblePort(options.address)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "address: got ", options.address, ", want a port from 1 to 65535"));
  }
  if (options.timeout <= absl::ZeroDuration() ||
      options.timeout == absl::InfiniteDuration()) {
    return absl::InvalidArgumentError(
        absl::StrCat("timeout: got ", absl::FormatDuration(options.timeout),
                     ", want a finite time above 0"));
  }
  if (!options.api_key.empty() && !options.tls.has_value() &&
      !IsLocal(options.address)) {
    return absl::InvalidArgumentError(
        absl::StrCat("api_key: got one for ", options.address,
                     " without TLS, want TLS: it would cross the network in "
                     "the clear"));
  }
  if (!std::all_of(options.api_key.begin(), options.api_key.end(),
                   absl::ascii_isprint)) {
    return absl::InvalidArgumentError(
        "api_key: got characters that are not printable ASCII");
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReceiveBytes);
  // The client's own retry is the only one.
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  // What connecting may take: TLS over a wireless link needs some time.
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10000);
  // Channels of equal arguments would share one connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // The environment's http_proxy would lead off this machine.
  if (IsLocal(options.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (options.tls.has_value() && !options.tls->server_name.empty()) {
    arguments.SetSslTargetNameOverride(options.tls->server_name);
  }
  return grpc::CreateCustomChannel(options.address, Credentials(options),
                                   arguments);
}

absl::StatusOr<std::unique_ptr<PolicyClient>> PolicyClient::Connect(
    Options options) {
  auto channel = MakeChannel(options);
  if (!channel.ok()) return channel.status();
  return absl::WrapUnique(
      new PolicyClient(std::move(options), *std::move(channel)));
}

PolicyClient::PolicyClient(Options options,
                           std::shared_ptr<grpc::Channel> channel)
    : options_(std::move(options)),
      channel_(std::move(channel)),
      stub_(v1::PolicyService::NewStub(channel_)),
      infer_stub_(channel_) {}

Clock::TimePoint PolicyClient::Deadline(const CallOptions& call) {
  return options_.clock->Now() +
         absl::ToChronoNanoseconds(call.timeout.value_or(options_.timeout));
}

absl::Status PolicyClient::RunWithRetry(Clock::TimePoint deadline, int attempts,
                                        const Attempt& attempt) {
  for (int tries = 1;; ++tries) {
    const absl::Duration left =
        absl::FromChrono(deadline - options_.clock->Now());
    grpc::ClientContext context;
    context.set_deadline(GrpcDeadline(left));
    SetCredential(options_.api_key, &context);
    const absl::Status status = attempt(&context);
    const absl::Duration rest =
        absl::FromChrono(deadline - options_.clock->Now());
    if (status.ok()) {
      return rest < absl::ZeroDuration() ? LateReply(-rest) : status;
    }
    if (tries >= std::min(attempts, kMaxAttempts)) return status;
    const auto delay = RetryDelay(status, Pushback(context), rest);
    if (!delay.has_value()) return status;
    options_.clock->SleepFor(*delay);
  }
}

absl::StatusOr<ActionChunk> PolicyClient::Infer(
    const ObservationIn& observation, const CallOptions& call) {
  auto chunk = InferUntil(Deadline(call), observation, call.attempts);
  if (MayBeAnotherPolicy(chunk.status())) ForgetInfo(observation.policy);
  return chunk;
}

absl::StatusOr<ActionChunk> PolicyClient::InferUntil(
    Clock::TimePoint deadline, const ObservationIn& observation, int attempts) {
  auto info = Check(observation, deadline);
  if (!info.ok()) return info.status();
  v1::InferResponse response;
  const absl::Status status =
      RunWithRetry(deadline, attempts, [&](grpc::ClientContext* context) {
        return infer_stub_.Call(
            EncodeRequest(observation, options_.clock->Now()), context,
            &response);
      });
  if (!status.ok()) return status;
  if (response.result().model_digest() != info->model_digest()) {
    ForgetInfo(observation.policy);
    info = Check(observation, deadline);
    if (!info.ok()) return info.status();
  }
  auto chunk = DecodeResult(response.result(), observation.request_id);
  if (!chunk.ok()) return chunk.status();
  if (absl::Status fit = CheckChunk(*chunk, *info); !fit.ok()) {
    ForgetInfo(observation.policy);
    return fit;
  }
  return chunk;
}

absl::StatusOr<std::vector<v1::PolicyInfo>> PolicyClient::GetPolicyInfo(
    const std::string& policy, const CallOptions& call) {
  return FetchInfo(policy, Deadline(call));
}

absl::StatusOr<std::vector<v1::PolicyInfo>> PolicyClient::FetchInfo(
    const std::string& policy, Clock::TimePoint deadline) {
  v1::GetPolicyInfoRequest request;
  request.set_policy(policy);
  v1::GetPolicyInfoResponse response;
  const absl::Status status =
      RunWithRetry(deadline, kMaxAttempts, [&](grpc::ClientContext* context) {
        return FromGrpc(stub_->GetPolicyInfo(context, request, &response));
      });
  if (!status.ok()) return status;
  return std::vector<v1::PolicyInfo>(response.policies().begin(),
                                     response.policies().end());
}

absl::StatusOr<v1::PolicyInfo> PolicyClient::Check(
    const ObservationIn& observation, Clock::TimePoint deadline) {
  auto info = InfoFor(observation.policy, deadline);
  if (!info.ok()) return info.status();
  absl::Status status = CheckObservation(observation, *info);
  if (!status.ok()) return status;
  return info;
}

absl::StatusOr<v1::PolicyInfo> PolicyClient::InfoFor(
    const std::string& policy, Clock::TimePoint deadline) {
  {
    absl::MutexLock lock(&mutex_);
    const auto found = infos_.find(policy);
    if (found != infos_.end()) return found->second;
  }
  const auto infos = FetchInfo(policy, deadline);
  if (!infos.ok()) return infos.status();
  if (infos->size() != 1) {
    return InvalidObservation(
        "policy", absl::StrCat("got '", policy, "', which is ", infos->size(),
                               " policies here, want one"));
  }
  if (absl::Status status = CheckPolicy(infos->front(), options_.expect);
      !status.ok()) {
    return status;
  }
  absl::MutexLock lock(&mutex_);
  return infos_[policy] = infos->front();
}

void PolicyClient::ForgetInfo(const std::string& policy) {
  absl::MutexLock lock(&mutex_);
  infos_.erase(policy);
}

absl::StatusOr<std::unique_ptr<PolicyStream>> PolicyClient::OpenStream(
    const CallOptions& call) {
  auto infos = FetchInfo("", Deadline(call));
  if (!infos.ok()) return infos.status();
  return std::make_unique<PolicyStream>(PolicyStream::Setup{
      .channel = channel_,
      .api_key = options_.api_key,
      .timeout = options_.timeout,
      .clock = options_.clock,
      .policies = *std::move(infos),
      .expect = options_.expect,
  });
}

}  // namespace piserve::client
