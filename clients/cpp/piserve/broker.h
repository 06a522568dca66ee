// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "clients/cpp/piserve/observation.h"

namespace piserve::client {

// Hands out the actions of a chunk one step at a time and asks the policy for
// the next chunk after `steps` of them. Not thread-safe: one for each robot.
// Source: openpi packages/openpi-client action_chunk_broker.py.
class ActionChunkBroker {
 public:
  using InferFn =
      std::function<absl::StatusOr<ActionChunk>(const ObservationIn&)>;

  // INVALID_ARGUMENT if steps < 1.
  static absl::StatusOr<std::unique_ptr<ActionChunkBroker>> Create(
      InferFn infer, int steps);

  // True if the next call of NextAction looks at its observation; otherwise the
  // caller may leave the cameras alone.
  bool needs_observation() const { return !chunk_.has_value(); }

  // The next action, [action_dim]. An error of the policy is handed on and the
  // next call asks again. FAILED_PRECONDITION if a chunk is shorter than
  // `steps`.
  absl::StatusOr<std::vector<float>> NextAction(
      const ObservationIn& observation);

  // Drops what is left of the chunk, as at the start of an episode.
  void Reset();

 private:
  ActionChunkBroker(InferFn infer, int steps)
      : infer_(std::move(infer)), steps_(steps) {}

  absl::Status Refill(const ObservationIn& observation);

  const InferFn infer_;
  const int steps_;
  std::optional<ActionChunk> chunk_;
  int next_step_ = 0;
};

}  // namespace piserve::client
