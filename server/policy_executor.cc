// SPDX-License-Identifier: Apache-2.0
#include "server/policy_executor.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/error.h"

namespace piserve::server {
namespace {

constexpr char kNonFinite[] = "NON_FINITE_OUTPUT";
constexpr char kExpired[] = "EXPIRED";

absl::Status DeviceFault(absl::string_view what) {
  return WithReason(absl::InternalError(what), "DEVICE_FAULT");
}

absl::Status TooLate(absl::Duration late) {
  return WithReason(
      absl::DeadlineExceededError(absl::StrCat("the answer was ready ",
                                               absl::ToInt64Microseconds(late),
                                               " us after the deadline")),
      kExpired);
}

// The label under which a computed answer is counted as withheld, or null.
const char* WithheldFor(const absl::Status& status) {
  const std::optional<std::string> reason = ReasonOf(status);
  if (reason == kNonFinite) return "non_finite";
  if (reason == kExpired) return "late";
  return nullptr;
}

void FillRow(const InferenceTask& task, const SlotRow& row) {
  std::ranges::copy(task.input.pixels, row.pixels.begin());
  std::ranges::copy(task.input.camera_mask, row.camera_mask.begin());
  std::ranges::copy(task.input.tokens, row.tokens.begin());
  *row.token_count = static_cast<std::int32_t>(task.input.tokens.size());
  std::ranges::transform(task.input.state, row.state.begin(),
                         [](double v) { return static_cast<float>(v); });
  std::ranges::copy(task.noise, row.noise.begin());
}

WaveShape ShapeOf(const std::vector<TaskPtr>& tasks) {
  WaveShape shape;
  shape.rows = static_cast<int>(tasks.size());
  shape.cameras = 0;
  shape.steps = tasks.front()->traits.steps;
  for (const TaskPtr& task : tasks) {
    shape.cameras = std::max(shape.cameras, task->input.cameras());
    shape.prompt_tokens = std::max(shape.prompt_tokens,
                                   static_cast<int>(task->input.tokens.size()));
  }
  return shape;
}

bool IsDeviceStage(absl::string_view stage) {
  return stage == "vision" || stage == "prefill" || stage == "denoise";
}

}  // namespace

std::uint64_t CompatibilityOf(int policy_index, int steps) {
  return static_cast<std::uint64_t>(policy_index) << 32 |
         static_cast<std::uint32_t>(steps);
}

// `taken` is set by whoever answers the rows: the completion or the watchdog.
struct PolicyExecutor::RunningWave {
  std::vector<TaskPtr> tasks;
  WaveShape shape;
  std::unique_ptr<Slot> slot;  // until submitted
  std::function<void()> done;
  absl::Time launched;
  absl::Duration predicted;
  std::atomic<bool> taken = false;
};

PolicyExecutor::PolicyExecutor(int policy_index, const HostedPolicy& hosted,
                               WorkerPool& pool, const batching::Clock& clock,
                               SchedulerObserver& observer)
    : policy_index_(policy_index),
      hosted_(hosted),
      pool_(pool),
      clock_(clock),
      observer_(observer) {}

PolicyExecutor::~PolicyExecutor() = default;

const std::vector<int>& PolicyExecutor::sizes() const {
  return hosted_.policy->capabilities().batch_sizes;
}

int PolicyExecutor::slots() const {
  return hosted_.policy->capabilities().slots_in_flight;
}

bool PolicyExecutor::Serves(std::uint64_t compatibility) const {
  return compatibility >> 32 == static_cast<std::uint64_t>(policy_index_);
}

absl::Duration PolicyExecutor::Predict(const batching::WaveCost& cost) const {
  return hosted_.policy->PredictDuration(
      {cost.rows, cost.cameras, cost.prompt_tokens, cost.steps});
}

bool PolicyExecutor::healthy() const {
  return !abandoned_ && hosted_.policy->healthy();
}

void PolicyExecutor::Launch(std::vector<TaskPtr> tasks,
                            std::function<void()> done) {
  auto wave = std::make_shared<RunningWave>();
  wave->shape = ShapeOf(tasks);
  wave->tasks = std::move(tasks);
  wave->done = std::move(done);
  wave->launched = clock_.Now();
  wave->predicted = hosted_.policy->PredictDuration(wave->shape);
  if (absl::Status filled = Fill(*wave); !filled.ok()) {
    Fail(*wave, filled);
    return;
  }
  {
    batching::MutexLock lock(mutex_);
    // Waves behind another one start when that one ends.
    if (!running_.empty()) {
      const RunningWave& last = *running_.back();
      wave->launched = std::max(wave->launched, last.launched + last.predicted);
    }
    running_.push_back(wave);
  }
  hosted_.policy->Submit(
      {std::move(wave->slot), wave->shape},
      [this, wave](WaveResult result) { Complete(wave, std::move(result)); });
}

absl::Status PolicyExecutor::Fill(RunningWave& wave) {
  auto slot = hosted_.policy->AcquireSlot(wave.shape.rows);
  if (!slot.ok()) return slot.status();
  wave.slot = *std::move(slot);
  for (int i = 0; i < wave.shape.rows; ++i) {
    wave.tasks[i]->launched = wave.launched;
    FillRow(*wave.tasks[i], wave.slot->row(i));
  }
  const absl::Time formed = clock_.Now();
  for (const TaskPtr& task : wave.tasks) task->formed = formed;
  return absl::OkStatus();
}

// On the policy's thread: hands over to the pool and returns.
void PolicyExecutor::Complete(const WavePtr& wave, WaveResult result) {
  Forget(*wave);
  if (wave->taken.exchange(true)) return;
  auto shared = std::make_shared<WaveResult>(std::move(result));
  pool_.Post(WorkerPool::Urgency::kAnswer,
             [this, wave, shared] { Answer(*wave, std::move(*shared)); });
}

void PolicyExecutor::Answer(RunningWave& wave, WaveResult result) {
  const absl::Duration ran = clock_.Now() - wave.launched;
  observer_.OnPredictionRatio(absl::FDivDuration(ran, wave.predicted));
  for (const StageDuration& stage : result.stages) {
    if (IsDeviceStage(stage.stage)) {
      observer_.OnDeviceStage(stage.stage, stage.duration);
    } else {
      observer_.OnStage(stage.stage, stage.duration);
    }
  }
  for (int i = 0; i < wave.shape.rows; ++i) AnswerRow(wave, i, result);
  result.slot.reset();  // before done: the batcher counts slots
  wave.done();
}

void PolicyExecutor::AnswerRow(RunningWave& wave, int row,
                               const WaveResult& result) {
  InferenceTask& task = *wave.tasks[row];
  const absl::Time ready = clock_.Now();
  auto actions = RobotActions(task, row, result);
  const absl::Time finished = clock_.Now();
  observer_.OnSlack(task.traits.deadline - finished);
  if (actions.ok() && finished > task.traits.deadline) {
    actions = TooLate(finished - task.traits.deadline);
  }
  if (!actions.ok()) {
    if (const char* why = WithheldFor(actions.status())) {
      observer_.OnWithheld(why);
    }
    task.done(actions.status());
    return;
  }
  const std::vector<StageDuration> stages = {
      {"decode", task.decode_time},
      {"queue", task.launched - task.enqueued},
      {"form", task.formed - task.launched},
      {"gpu", ready - std::max(task.formed, wave.launched)},
      {"post", finished - ready}};
  for (const StageDuration& s : stages) observer_.OnStage(s.stage, s.duration);
  InferenceReply reply = Reply(task, *std::move(actions));
  reply.wave_rows = wave.shape.rows;
  reply.graph_rows = result.graph_rows;
  reply.stages = stages;
  reply.stages.insert(reply.stages.end(), result.stages.begin(),
                      result.stages.end());
  task.done(std::move(reply));
}

// [H, action_dim] in robot units, finite.
absl::StatusOr<std::vector<float>> PolicyExecutor::RobotActions(
    const InferenceTask& task, int row, const WaveResult& result) const {
  if (!result.row_status[row].ok()) return result.row_status[row];
  const auto actions =
      hosted_.pipeline->Finish(result.slot->row(row).actions, task.input);
  if (!actions.ok()) return actions.status();
  std::vector<float> narrow(actions->begin(), actions->end());
  if (!std::ranges::all_of(narrow, [](float a) { return std::isfinite(a); })) {
    return WithReason(absl::InternalError("actions are not finite"),
                      kNonFinite);
  }
  return narrow;
}

InferenceReply PolicyExecutor::Reply(const InferenceTask& task,
                                     std::vector<float> actions) const {
  InferenceReply reply;
  reply.actions = std::move(actions);
  reply.horizon = hosted_.pipeline->action_horizon();
  reply.dim = hosted_.pipeline->action_dim();
  reply.seed = task.seed;
  reply.policy = hosted_.name;
  reply.model_digest = hosted_.model_digest;
  reply.deadline_served = task.deadline_served;
  reply.num_steps = task.traits.steps;
  return reply;
}

void PolicyExecutor::Fail(RunningWave& wave, const absl::Status& status) {
  for (const TaskPtr& task : wave.tasks) task->done(status);
  wave.done();
}

void PolicyExecutor::Forget(const RunningWave& wave) {
  batching::MutexLock lock(mutex_);
  std::erase_if(running_,
                [&wave](const WavePtr& w) { return w.get() == &wave; });
}

absl::Duration PolicyExecutor::Overdue(double factor,
                                       absl::Duration floor) const {
  batching::MutexLock lock(mutex_);
  if (running_.empty()) return absl::ZeroDuration();
  const RunningWave& oldest = *running_.front();
  return clock_.Now() - oldest.launched - factor * oldest.predicted - floor;
}

void PolicyExecutor::Abandon() {
  abandoned_ = true;
  std::vector<WavePtr> waves;
  {
    batching::MutexLock lock(mutex_);
    waves.swap(running_);
  }
  for (const WavePtr& wave : waves) {
    if (wave->taken.exchange(true)) continue;
    Fail(*wave, DeviceFault("the device does not answer"));
  }
}

}  // namespace piserve::server
