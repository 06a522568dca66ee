// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace piserve::server::rpc {

// What a request came by. On a stream each message is a request.
// openpi's websocket wire (server/websocket) counts beside gRPC.
enum class Method { kInfer, kInferStream, kGetPolicyInfo, kWebsocketInfer };

// Told what happens to requests on the wire; metrics implement it.
//
// Each Received is followed by exactly one Completed. Thread-safe; must not
// block and outlives the listeners. Messages that gRPC or the websocket itself
// refuses are not seen here.
class CallObserver {
 public:
  virtual ~CallObserver() = default;

  virtual void Received(Method method) = 0;

  // `status` is the one final answer; ReasonOf(status) says why it is not OK.
  // `elapsed` runs from receipt to the answer's being handed to gRPC.
  virtual void Completed(Method method, const absl::Status& status,
                         absl::Duration elapsed) = 0;

  // From received bytes to a checked request.
  virtual void Parsed(Method method, absl::Duration elapsed) = 0;

  // From the answer's being handed to gRPC to its having been written.
  virtual void Sent(Method method, absl::Duration elapsed) = 0;
};

}  // namespace piserve::server::rpc
