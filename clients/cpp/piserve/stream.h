// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "clients/cpp/piserve/clock.h"
#include "clients/cpp/piserve/observation.h"
#include "clients/cpp/piserve/policy_check.h"
#include "grpcpp/channel.h"
#include "piserve/v1/policy.pb.h"

namespace piserve::client {

// Many observations in flight over one InferStream. Thread-safe.
//
// Each observation has its own deadline and its own answer; an error ends
// nothing but itself. When the connection breaks, what is in flight ends with
// its status, and the next Send makes a new one. Nothing is tried twice: by
// then the robot has a newer observation.
class PolicyStream {
 public:
  // Fires exactly once for each Send, on any thread (for an observation that is
  // refused at once: before Send returns). Must not block and must not destroy
  // the stream. An answer after its deadline is never handed over: the deadline
  // itself has been, as DEADLINE_EXCEEDED.
  using Callback = std::function<void(absl::StatusOr<ActionChunk>)>;

  // The server answers more than this with RESOURCE_EXHAUSTED; so does Send.
  static constexpr int kMaxInFlight = 64;

  struct Setup {
    std::shared_ptr<grpc::Channel> channel;
    std::string api_key;
    absl::Duration timeout;                // where a call names none
    Clock* clock = nullptr;                // not owned
    std::vector<v1::PolicyInfo> policies;  // for checks before sending
    Expectation expect = {};
  };

  explicit PolicyStream(Setup setup);
  // Ends what is in flight with CANCELLED; no callback runs afterwards.
  ~PolicyStream();
  PolicyStream(const PolicyStream&) = delete;
  PolicyStream& operator=(const PolicyStream&) = delete;

  // Never blocks. An observation without request_id gets one, and one whose id
  // an earlier request had, whose answer may still come, is sent under another:
  // a late answer is never taken for it. Retries none, whatever `call` says.
  // The answer of a model that took the place of the one of the opening is
  // FAILED_PRECONDITION, reason MODEL_CHANGED: open anew. So do after
  // INVALID_ARGUMENT or NOT_FOUND that the observation does not explain: what
  // is hosted may have changed, and this stream does not ask again.
  void Send(const ObservationIn& observation, const CallOptions& call,
            Callback done);

  // Answers that nobody waited for any more: late, or of an unknown id.
  std::uint64_t dropped_replies() const;

 private:
  class State;

  const std::shared_ptr<State> state_;
};

}  // namespace piserve::client
