// SPDX-License-Identifier: Apache-2.0
#include "server/policy_executor.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "batching/mutex.h"
#include "server/refusal.h"

namespace piserve::server {
namespace {

void FillRow(const ActiveRequest& request, SlotRow row) {
  const ModelInput& input = request.input;
  std::copy(input.pixels.begin(), input.pixels.end(), row.pixels.begin());
  std::copy(input.camera_mask.begin(), input.camera_mask.end(),
            row.camera_mask.begin());
  std::copy(input.tokens.begin(), input.tokens.end(), row.tokens.begin());
  *row.token_count = static_cast<std::int32_t>(input.tokens.size());
  std::transform(input.state.begin(), input.state.end(), row.state.begin(),
                 [](double x) { return static_cast<float>(x); });
  std::copy(request.noise.begin(), request.noise.end(), row.noise.begin());
}

WaveShape ShapeOf(const std::vector<Task>& tasks) {
  WaveShape shape{.rows = static_cast<int>(tasks.size()),
                  .cameras = 0,
                  .prompt_tokens = 0,
                  .steps = tasks.front()->steps};
  for (const Task& task : tasks) {
    shape.cameras = std::max(shape.cameras, task->input.cameras());
    shape.prompt_tokens = std::max(shape.prompt_tokens,
                                   static_cast<int>(task->input.tokens.size()));
  }
  return shape;
}

}  // namespace

std::uint64_t Compatibility(int policy, int steps) {
  return (static_cast<std::uint64_t>(policy) << 32) |
         static_cast<std::uint32_t>(steps);
}

// Shared with the completions that are under way.
class PolicyExecutor::State : public std::enable_shared_from_this<State> {
 public:
  // A time, and what the device had got and done by then of other policies.
  struct Moment {
    absl::Time time = absl::InfinitePast();
    DeviceWork::Totals beside;
  };

  struct RunningWave {
    std::uint64_t id = 0;
    std::vector<Task> tasks;
    std::function<void()> done;
    Moment submitted;
    absl::Duration predicted;
  };

  struct EndedWave {
    RunningWave wave;
    absl::Time began;         // on the device
    absl::Duration measured;  // since then
    absl::Duration busy;      // DeviceWork::Finish
    absl::Duration expected;  // as predicted, with others' waves beside it
  };

  State(const HostedPolicy& host, Options options)
      : host_(host), options_(options) {}

  void Launch(std::vector<Task> tasks, std::function<void()> done);
  bool CheckFaults();
  void TakeOut();
  bool healthy() const { return !faulted_ && host_.policy->healthy(); }

  const HostedPolicy& host_;
  const Options options_;

 private:
  std::uint64_t Remember(std::vector<Task> tasks, std::function<void()> done,
                         const WaveShape& shape);
  // Nothing if the watchdog has answered it already.
  std::optional<EndedWave> Take(std::uint64_t id);
  void Completed(std::uint64_t id, WaveResult result);
  void AnswerRows(RunningWave wave, WaveResult result);
  static void FailAll(std::vector<Task> tasks, const absl::Status& status);
  Moment Now() const;
  DeviceWork::Totals Beside() const {
    return options_.work->Beside(options_.index);
  }
  // When the device began with a wave that is the oldest.
  Moment BeginOf(const RunningWave& wave) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TimeBeside(const RunningWave& wave) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Duration TurnsBeside(const RunningWave& wave) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::deque<RunningWave> TakeAll() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // All that is running, if the oldest wave hangs: the device is out from then.
  std::deque<RunningWave> TakeIfHung();
  static void AnswerLost(std::deque<RunningWave> waves);
  // The first kind counts.
  void ReportFault(FaultKind kind);

  std::atomic<bool> faulted_ = false;
  std::atomic<bool> reported_ = false;
  batching::Mutex mutex_;
  std::uint64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<RunningWave> running_ ABSL_GUARDED_BY(mutex_);
  // The device is on its oldest wave since then, or since its submission.
  Moment last_end_ ABSL_GUARDED_BY(mutex_);
};

void PolicyExecutor::State::Launch(std::vector<Task> tasks,
                                   std::function<void()> done) {
  for (Task& task : tasks) task->EndStage("queue");
  const WaveShape shape = ShapeOf(tasks);
  absl::StatusOr<std::unique_ptr<Slot>> slot =
      host_.policy->AcquireSlot(shape.rows);
  if (!slot.ok() || !healthy()) {
    FailAll(std::move(tasks),
            healthy() ? RowFailed(slot.status()) : DeviceFault());
    done();
    return;
  }
  for (int i = 0; i < shape.rows; ++i) FillRow(*tasks[i], (*slot)->row(i));
  for (Task& task : tasks) task->EndStage("form");
  const std::uint64_t id = Remember(std::move(tasks), std::move(done), shape);
  auto submit = [state = shared_from_this(), id, shape,
                 slot = *std::move(slot)]() mutable {
    state->host_.policy->Submit({std::move(slot), shape},
                                [state, id](WaveResult result) {
                                  state->Completed(id, std::move(result));
                                });
  };
  if (options_.launcher == nullptr) {
    submit();
  } else {
    options_.launcher->Submit(WorkerPool::Lane::kAnswer, std::move(submit));
  }
}

std::uint64_t PolicyExecutor::State::Remember(std::vector<Task> tasks,
                                              std::function<void()> done,
                                              const WaveShape& shape) {
  const absl::Duration predicted = host_.policy->PredictDuration(shape);
  batching::MutexLock lock(mutex_);
  running_.push_back(
      {next_id_, std::move(tasks), std::move(done), Now(), predicted});
  options_.work->Give(options_.index, predicted,
                      running_.back().submitted.time);
  return next_id_++;
}

PolicyExecutor::State::Moment PolicyExecutor::State::Now() const {
  return {options_.clock->Now(), Beside()};
}

PolicyExecutor::State::Moment PolicyExecutor::State::BeginOf(
    const RunningWave& wave) const {
  return wave.submitted.time < last_end_.time ? last_end_ : wave.submitted;
}

std::optional<PolicyExecutor::State::EndedWave> PolicyExecutor::State::Take(
    std::uint64_t id) {
  batching::MutexLock lock(mutex_);
  const auto it =
      std::find_if(running_.begin(), running_.end(),
                   [&](const RunningWave& wave) { return wave.id == id; });
  if (it == running_.end()) return std::nullopt;
  EndedWave ended;
  ended.began = BeginOf(*it).time;
  ended.expected = it->predicted + TurnsBeside(*it);
  ended.wave = std::move(*it);
  running_.erase(it);
  last_end_ = Now();
  ended.measured = last_end_.time - ended.began;
  ended.busy = options_.work->Finish(options_.index, ended.wave.predicted,
                                     last_end_.time);
  return ended;
}

void PolicyExecutor::State::Completed(std::uint64_t id, WaveResult result) {
  std::optional<EndedWave> ended = Take(id);
  if (!ended) return;
  RunningWave& wave = ended->wave;
  options_.observer->OnWave({.device = host_.device,
                             .predicted = ended->expected,
                             .measured = ended->measured,
                             .busy = ended->busy,
                             .stages = result.stages});
  for (Task& task : wave.tasks) {
    task->AddStage("queue", ended->began - wave.submitted.time);
    task->AddStage("gpu", ended->measured);
    task->BeginStage();
  }
  options_.pool->Submit(WorkerPool::Lane::kAnswer,
                        [state = shared_from_this(), wave = std::move(wave),
                         result = std::move(result)]() mutable {
                          state->AnswerRows(std::move(wave), std::move(result));
                        });
}

void PolicyExecutor::State::AnswerRows(RunningWave wave, WaveResult result) {
  const int rows = static_cast<int>(wave.tasks.size());
  for (int i = 0; i < rows; ++i) {
    ActiveRequest& request = *wave.tasks[i];
    if (i >= static_cast<int>(result.row_status.size())) {
      request.Fail(DeviceLost());
    } else if (!result.row_status[i].ok()) {
      request.Fail(RowFailed(result.row_status[i]));
    } else {
      request.Succeed(result.slot->row(i).actions, result, rows);
    }
  }
  wave.tasks.clear();
  result.slot.reset();  // the next wave may need it
  wave.done();
}

void PolicyExecutor::State::FailAll(std::vector<Task> tasks,
                                    const absl::Status& status) {
  for (Task& task : tasks) task->Fail(status);
}

std::deque<PolicyExecutor::State::RunningWave>
PolicyExecutor::State::TakeAll() {
  faulted_ = true;
  for (const RunningWave& wave : running_) {
    options_.work->Finish(options_.index, wave.predicted,
                          options_.clock->Now());
  }
  return std::exchange(running_, {});
}

// What others' waves can take of the device while this one runs: those that it
// had then, and of what it got since no more than this one itself, for each of
// their policies. Else a policy that never rests would hide that another hangs.
absl::Duration PolicyExecutor::State::TimeBeside(
    const RunningWave& wave) const {
  const DeviceWork::Totals then = BeginOf(wave).beside;
  const DeviceWork::Totals now = Beside();
  return then.given - then.done +
         std::min(now.given - then.given, now.policies * wave.predicted);
}

// What others' waves should have taken of the device since this one began, if
// policies take turns: each of them as long as this wave, if they had as much.
absl::Duration PolicyExecutor::State::TurnsBeside(
    const RunningWave& wave) const {
  const DeviceWork::Totals now = Beside();
  return std::min(now.given - BeginOf(wave).beside.done,
                  now.policies * wave.predicted);
}

std::deque<PolicyExecutor::State::RunningWave>
PolicyExecutor::State::TakeIfHung() {
  batching::MutexLock lock(mutex_);
  if (running_.empty()) return {};
  const RunningWave& oldest = running_.front();
  const absl::Duration running = options_.clock->Now() - BeginOf(oldest).time;
  const bool hung =
      running > options_.hang.After(oldest.predicted + TimeBeside(oldest));
  return hung ? TakeAll() : std::deque<RunningWave>();
}

bool PolicyExecutor::State::CheckFaults() {
  std::deque<RunningWave> hung = TakeIfHung();
  if (!hung.empty()) ReportFault(FaultKind::kHang);
  if (!healthy()) ReportFault(FaultKind::kPolicy);
  AnswerLost(std::move(hung));
  return healthy();
}

void PolicyExecutor::State::TakeOut() {
  std::deque<RunningWave> lost;
  {
    batching::MutexLock lock(mutex_);
    lost = TakeAll();
  }
  reported_ = true;  // by whom it was found
  AnswerLost(std::move(lost));
}

void PolicyExecutor::State::AnswerLost(std::deque<RunningWave> waves) {
  for (RunningWave& wave : waves) {
    FailAll(std::move(wave.tasks), DeviceLost());
    wave.done();
  }
}

void PolicyExecutor::State::ReportFault(FaultKind kind) {
  if (!reported_.exchange(true)) {
    options_.observer->OnFault(host_.device, kind);
  }
}

PolicyExecutor::PolicyExecutor(const HostedPolicy& host, Options options)
    : state_(std::make_shared<State>(host, options)) {}

PolicyExecutor::~PolicyExecutor() = default;

const std::vector<int>& PolicyExecutor::sizes() const {
  return state_->host_.policy->capabilities().batch_sizes;
}

int PolicyExecutor::slots() const {
  return state_->host_.policy->capabilities().slots_in_flight;
}

const void* PolicyExecutor::device() const {
  return state_->options_.work.get();
}

bool PolicyExecutor::Serves(std::uint64_t compatibility) const {
  return (compatibility >> 32) ==
         static_cast<std::uint64_t>(state_->options_.index);
}

absl::Duration PolicyExecutor::Predict(const batching::WaveCost& cost) const {
  return state_->host_.policy->PredictDuration(
      {.rows = cost.rows,
       .cameras = cost.cameras,
       .prompt_tokens = cost.prompt_tokens,
       .steps = cost.steps});
}

bool PolicyExecutor::healthy() const { return state_->healthy(); }

void PolicyExecutor::Launch(std::vector<Task> wave,
                            std::function<void()> done) {
  state_->Launch(std::move(wave), std::move(done));
}

bool PolicyExecutor::CheckFaults() { return state_->CheckFaults(); }

void PolicyExecutor::TakeOut() { state_->TakeOut(); }

}  // namespace piserve::server
