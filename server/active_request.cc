// SPDX-License-Identifier: Apache-2.0
#include "server/active_request.h"

#include <cassert>
#include <cmath>
#include <utility>

#include "server/refusal.h"

namespace piserve::server {

ActiveRequest::ActiveRequest(InferenceRequest request_in, Inference::Done done,
                             RequestContext& context)
    : request(std::move(request_in)),
      context_(context),
      done_(std::move(done)),
      stage_began_(context.clock->Now()) {
  ++context_.in_flight;
}

ActiveRequest::~ActiveRequest() {
  assert(done_ == nullptr && "a request must be answered before it ends");
}

void ActiveRequest::Fail(const absl::Status& status) { Finish(status); }

void ActiveRequest::Succeed(std::span<const float> actions,
                            const WaveResult& wave, int wave_rows) {
  absl::StatusOr<InferenceReply> reply = MakeReply(actions);
  EndStage("post");
  if (const absl::Time now = context_.clock->Now();
      reply.ok() && now > deadline) {
    reply = DeadlineMissed(now - request.received, deadline - request.received);
  }
  if (reply.ok()) {
    reply->wave_rows = wave_rows;
    reply->graph_rows = wave.graph_rows;
    reply->stages = std::move(stages_);
    reply->stages.insert(reply->stages.end(), wave.stages.begin(),
                         wave.stages.end());
  }
  Finish(std::move(reply));
}

absl::StatusOr<InferenceReply> ActiveRequest::MakeReply(
    std::span<const float> actions) {
  const absl::StatusOr<std::vector<double>> robot_units =
      host->pipeline->Finish(actions, input);
  if (!robot_units.ok()) return AnswerLost(robot_units.status());
  InferenceReply reply;
  reply.actions.assign(robot_units->begin(), robot_units->end());
  for (const float action : reply.actions) {
    if (!std::isfinite(action)) return NonFiniteOutput();
  }
  reply.horizon = host->pipeline->action_horizon();
  reply.dim = host->pipeline->action_dim();
  reply.seed = seed;
  reply.policy = host->name;
  reply.model_digest = host->model_digest;
  reply.deadline_served = deadline - request.received;
  reply.num_steps = steps;
  return reply;
}

void ActiveRequest::BeginStage() { stage_began_ = context_.clock->Now(); }

void ActiveRequest::EndStage(const char* stage) {
  const absl::Time now = context_.clock->Now();
  AddStage(stage, now - stage_began_);
  stage_began_ = now;
}

void ActiveRequest::AddStage(const char* stage, absl::Duration duration) {
  for (StageDuration& known : stages_) {
    if (known.stage == stage) {
      known.duration += duration;
      return;
    }
  }
  stages_.push_back({stage, duration});
}

void ActiveRequest::DropObservation() {
  request.observation = {};
  request.storage.reset();
}

void ActiveRequest::Finish(absl::StatusOr<InferenceReply> reply) {
  const absl::Time now = context_.clock->Now();
  context_.observer->OnAnswer({.request = request,
                               .status = reply.status(),
                               .reply = reply.ok() ? &*reply : nullptr,
                               .total = now - request.received,
                               .slack = deadline - now});
  const Inference::Done done = std::exchange(done_, nullptr);
  done(std::move(reply));
  --context_.in_flight;
}

}  // namespace piserve::server
