// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "batching/clock.h"
#include "model/observation.h"
#include "model/policy.h"
#include "server/dispatch_observer.h"
#include "server/hosted_policy.h"
#include "server/inference.h"

namespace piserve::server {

// What all requests of a dispatcher share; outlives them.
struct RequestContext {
  const batching::Clock* clock;
  DispatchObserver* observer;
  std::atomic<int> in_flight = 0;
};

// A request between its receipt and its one answer. Belongs to one thread at a
// time.
class ActiveRequest {
 public:
  ActiveRequest(InferenceRequest request, Inference::Done done,
                RequestContext& context);
  ~ActiveRequest();
  ActiveRequest(const ActiveRequest&) = delete;
  ActiveRequest& operator=(const ActiveRequest&) = delete;

  // Answers. Exactly once.
  void Fail(const absl::Status& status);

  // Turns the row's result into robot units and answers: with the actions, or
  // INTERNAL (NON_FINITE_OUTPUT) if one is not finite, or DEADLINE_EXCEEDED
  // (LATE) if it is too late.
  //   actions  [H, action_dim], normalised
  void Succeed(std::span<const float> actions, const WaveResult& wave,
               int wave_rows);

  // Stages follow each other: one ends where the next one begins.
  void BeginStage();
  void EndStage(const char* stage);
  // Adds up where a stage has several parts.
  void AddStage(const char* stage, absl::Duration duration);

  // Frees what only preparing needed.
  void DropObservation();

  InferenceRequest request;
  const HostedPolicy* host = nullptr;
  absl::Time deadline;
  int steps = 0;
  std::optional<std::uint64_t> seed;
  ModelInput input;
  std::vector<float> noise;  // [H, action_dim]

 private:
  void Finish(absl::StatusOr<InferenceReply> reply);
  absl::StatusOr<InferenceReply> MakeReply(std::span<const float> actions);

  RequestContext& context_;
  Inference::Done done_;
  std::vector<StageDuration> stages_;
  absl::Time stage_began_;
};

// What the batcher moves about.
using Task = std::unique_ptr<ActiveRequest>;

}  // namespace piserve::server
