// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/intake.h"

#include <optional>
#include <utility>

#include "grpc/support/time.h"
#include "server/refusal.h"
#include "server/rpc/codec.h"

namespace piserve::server::rpc {

absl::StatusOr<Identity> Authenticate(const Authenticator& authenticator,
                                      const grpc::CallbackServerContext& call) {
  std::optional<absl::string_view> header;
  const auto& metadata = call.client_metadata();
  if (const auto it = metadata.find("authorization"); it != metadata.end()) {
    header = absl::string_view(it->second.data(), it->second.size());
  }
  return authenticator.Authenticate(header);
}

std::string PeerAddress(const grpc::CallbackServerContext& call) {
  std::string peer = call.peer();
  if (const auto colon = peer.rfind(':');
      colon != std::string::npos && peer.rfind("ip", 0) == 0) {
    peer.resize(colon);
  }
  return peer;
}

absl::Time DeadlineOf(const grpc::CallbackServerContext& call,
                      const batching::Clock& clock) {
  // Not as call.deadline() tells it: its nanoseconds overflow after 2262.
  const gpr_timespec deadline = call.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) {
    return absl::InfiniteFuture();
  }
  const gpr_timespec left = gpr_convert_clock_type(deadline, GPR_TIMESPAN);
  return clock.Now() + absl::Seconds(left.tv_sec) +
         absl::Nanoseconds(left.tv_nsec);
}

absl::StatusOr<InferenceRequest> Admit(
    const Backends& backends, const Arrival& arrival,
    const v1::ObservationRequest& observation,
    std::shared_ptr<const void> storage) {
  if (absl::Status s = Authorize(arrival.identity, observation.policy(),
                                 backends.directory.DefaultPolicy());
      !s.ok()) {
    return s;
  }
  if (absl::Status s = backends.directory.Availability(); !s.ok()) return s;
  auto request = ToInferenceRequest(observation, std::move(storage));
  if (!request.ok()) return request;
  request->identity = arrival.identity.name;
  request->peer = arrival.peer;
  request->received = arrival.received;
  request->deadline = arrival.deadline;
  request->bytes = arrival.bytes;
  return request;
}

absl::StatusOr<InferenceReply> NotAfterDeadline(
    absl::StatusOr<InferenceReply> reply, absl::Time received, absl::Time now) {
  if (!reply.ok()) return reply;
  const absl::Status met = DeadlineMet(now - received, reply->deadline_served);
  return met.ok() ? std::move(reply) : met;
}

}  // namespace piserve::server::rpc
