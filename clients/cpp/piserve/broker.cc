// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/broker.h"

#include <utility>

#include "absl/memory/memory.h"
#include "absl/strings/str_cat.h"

namespace piserve::client {

absl::StatusOr<std::unique_ptr<ActionChunkBroker>> ActionChunkBroker::Create(
    InferFn infer, int steps) {
  if (steps < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps: got ", steps, ", want at least 1"));
  }
  return absl::WrapUnique(new ActionChunkBroker(std::move(infer), steps));
}

absl::StatusOr<std::vector<float>> ActionChunkBroker::NextAction(
    const ObservationIn& observation) {
  if (!chunk_.has_value()) {
    if (absl::Status status = Refill(observation); !status.ok()) return status;
  }
  const std::span<const float> action = chunk_->step(next_step_);
  std::vector<float> result(action.begin(), action.end());
  if (++next_step_ == steps_) Reset();
  return result;
}

void ActionChunkBroker::Reset() {
  chunk_.reset();
  next_step_ = 0;
}

absl::Status ActionChunkBroker::Refill(const ObservationIn& observation) {
  absl::StatusOr<ActionChunk> chunk = infer_(observation);
  if (!chunk.ok()) return chunk.status();
  if (chunk->horizon < steps_) {
    return absl::FailedPreconditionError(
        absl::StrCat("action chunk: got ", chunk->horizon,
                     " steps, want at least the broker's ", steps_));
  }
  chunk_ = *std::move(chunk);
  next_step_ = 0;
  return absl::OkStatus();
}

}  // namespace piserve::client
