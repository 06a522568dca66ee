// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "batching/clock.h"
#include "server/inference.h"
#include "server/rpc/auth.h"
#include "server/rpc/call_observer.h"
#include "server/rpc/policy_directory.h"
#include "server/websocket/observation.h"

namespace piserve::server::websocket {

// What the front stands on. Borrowed; outlives it.
struct Backends {
  Inference& inference;
  const rpc::PolicyDirectory& directory;
  rpc::CallObserver& observer;
  const rpc::Authenticator& authenticator;
  const batching::Clock& clock;
};

// What a client asks for when it connects.
struct ConnectRequest {
  // "/" is the only policy hosted, "/NAME" the one of that name.
  std::string target = "/";
  std::optional<std::string> authorization;  // as Authenticator reads it
  std::optional<std::string> origin;         // a browser's
};

// A connection that was let in: who it is, and what it is for.
struct Welcome {
  std::string identity;
  ObservationReader reader;
  std::string metadata;  // the first frame
};

// Checks, in this order: origin (PERMISSION_DENIED: a page that a browser of
// this machine shows is no robot), credential, availability, policy, permission
// for it. NOT_FOUND if the path names no policy, and where several are hosted
// and none is named.
absl::StatusOr<Welcome> Judge(const Backends& backends,
                              const ConnectRequest& request);

// The HTTP status that says the same.
int HttpStatusOf(const absl::Status& status);

}  // namespace piserve::server::websocket
