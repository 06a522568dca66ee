// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/clock.h"
#include "grpcpp/server_context.h"
#include "piserve/v1/policy.pb.h"
#include "server/inference.h"
#include "server/rpc/auth.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/policy_directory.h"

namespace piserve::server::rpc {

// What the services stand on. Borrowed; outlives them.
struct Backends {
  Inference& inference;
  const PolicyDirectory& directory;
  CallObserver& observer;
  const Authenticator& authenticator;
  const batching::Clock& clock;
};

// Who sent a request, and when it came.
struct Arrival {
  Identity identity;
  std::string peer;     // address without the port
  absl::Time received;  // batching::Clock
  // batching::Clock; InfiniteFuture where none is set.
  absl::Time deadline = absl::InfiniteFuture();
  std::size_t bytes = 0;
};

// The identity behind the call's `authorization` metadata.
absl::StatusOr<Identity> Authenticate(const Authenticator& authenticator,
                                      const grpc::CallbackServerContext& call);

// "ipv4:10.0.0.7" of "ipv4:10.0.0.7:51234": several connections of one machine
// are one client.
std::string PeerAddress(const grpc::CallbackServerContext& call);

// The call's deadline, moved from the wall clock to `clock`.
absl::Time DeadlineOf(const grpc::CallbackServerContext& call,
                      const batching::Clock& clock);

// The checks that lie between the bytes and Inference, of a request that a
// credential came with: availability, permission, contents. `storage` keeps
// `observation` alive.
absl::StatusOr<InferenceRequest> Admit(
    const Backends& backends, const Arrival& arrival,
    const v1::ObservationRequest& observation,
    std::shared_ptr<const void> storage);

// What is sent for what Inference gave: an answer that is ready only after the
// deadline it was served under is DEADLINE_EXCEEDED instead.
absl::StatusOr<InferenceReply> NotAfterDeadline(
    absl::StatusOr<InferenceReply> reply, absl::Time received, absl::Time now);

}  // namespace piserve::server::rpc
