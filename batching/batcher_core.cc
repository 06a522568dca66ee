// SPDX-License-Identifier: Apache-2.0
#include "batching/batcher_core.h"

#include <algorithm>
#include <cassert>
#include <optional>
#include <utility>

namespace piserve::batching {
namespace {

// How often the executors' health is looked at while tasks wait. A fault must
// be noticed within a second.
constexpr absl::Duration kHealthPeriod = absl::Milliseconds(100);

bool CanRun(const ExecutorTraits& executor, std::uint64_t compatibility) {
  return executor.healthy() && executor.Serves(compatibility);
}

}  // namespace

BatcherCore::BatcherCore(CoreOptions options,
                         std::vector<const ExecutorTraits*> executors,
                         Sink& sink)
    : options_(options), sink_(sink) {
  {
    MutexLock lock(mutex_);
    for (const ExecutorTraits* executor : executors) {
      runners_.emplace_back(executor);
    }
  }
  if (options_.drive == Drive::kThread)
    thread_ = std::thread([this] { Run(); });
}

BatcherCore::~BatcherCore() { assert(!thread_.joinable()); }

std::variant<Ticket, Rejection> BatcherCore::Admit(const TaskTraits& traits) {
  std::optional<Rejection> rejection;
  {
    MutexLock lock(mutex_);
    const absl::Time now = options_.clock->Now();
    rejection = Judge(options_.limits, options_.dispatch, LoadFor(traits, now),
                      traits, now);
    if (!rejection) return Ticket(this, queue_.Reserve(traits, now));
  }
  if (options_.observer != nullptr) {
    options_.observer->OnReject(rejection->reason, traits.priority);
  }
  return *rejection;
}

void BatcherCore::Enqueue(Ticket ticket, std::unique_ptr<HeldTask> task) {
  assert(ticket.core_ == this);
  ticket.core_ = nullptr;
  MutexLock lock(mutex_);
  queue_.Enqueue(ticket.id(), std::move(task), options_.clock->Now());
  WakeLocked();
}

void BatcherCore::Cancel(TaskId id) {
  MutexLock lock(mutex_);
  queue_.Cancel(id);
  WakeLocked();
}

void BatcherCore::Drain(absl::Time until) {
  MutexLock lock(mutex_);
  phase_ = Phase::kDraining;
  queue_.ClampDeadlines(until);
  WakeLocked();
}

void BatcherCore::Wake() {
  MutexLock lock(mutex_);
  WakeLocked();
}

bool BatcherCore::idle() const {
  MutexLock lock(mutex_);
  return queue_.empty() && NothingRuns();
}

QueueGauges BatcherCore::gauges() const {
  MutexLock lock(mutex_);
  return GaugesNow(options_.clock->Now());
}

void BatcherCore::Shutdown() {
  {
    MutexLock lock(mutex_);
    assert(queue_.rows() == queue_.waiting_rows() && "a Ticket is left");
    shutdown_ = true;
    WakeLocked();
  }
  if (thread_.joinable()) {
    thread_.join();
  } else {
    Run();
  }
}

void BatcherCore::Run() {
  while (true) {
    const absl::Time again = Poll();
    MutexLock lock(mutex_);
    if (shutdown_ && !queue_.has_waiting() && NothingRuns()) return;
    while (!woken_) {
      const absl::Duration left = again - options_.clock->Now();
      if (left <= absl::ZeroDuration()) break;
      wake_.WaitFor(mutex_, left);
    }
  }
}

absl::Time BatcherCore::Poll() {
  while (true) {
    Actions actions;
    {
      MutexLock lock(mutex_);
      actions = TakeActions();
      acting_ = actions.any();
    }
    if (!actions.any()) {
      if (options_.observer != nullptr) {
        options_.observer->OnQueue(actions.gauges);
      }
      return actions.again;
    }
    CarryOut(std::move(actions));
    MutexLock lock(mutex_);
    acting_ = false;
  }
}

BatcherCore::Actions BatcherCore::TakeActions() {
  woken_ = false;
  const absl::Time now = options_.clock->Now();
  Actions actions;
  for (const Completion& completion : std::exchange(completions_, {})) {
    actions.done.push_back(
        runners_[completion.executor].End(completion.wave, completion.at));
  }
  actions.dropped =
      shutdown_ ? queue_.TakeAll(DropReason::kShutdown)
                : queue_.TakeEnded(now, [this](std::uint64_t compatibility) {
                    mutex_.AssertHeld();
                    return Served(compatibility);
                  });
  ChooseWave(now, actions);
  if (queue_.has_waiting()) {
    actions.again =
        std::min({actions.again, queue_.next_end(), now + kHealthPeriod});
  }
  actions.gauges = GaugesNow(now);
  return actions;
}

void BatcherCore::ChooseWave(absl::Time now, Actions& actions) {
  const std::vector<const TaskTraits*> waiting = queue_.waiting();
  const std::vector<ExpectedTask> expected = queue_.expected();
  const std::vector<ExecutorState> executors = States(now);
  Decision decision =
      Decide(options_.dispatch, {now, phase_, waiting, expected, executors});
  actions.again = decision.again;
  if (!decision.launch) return;
  const Wave& wave = *decision.launch;
  const std::size_t bytes_before = queue_.bytes();
  actions.wave = queue_.TakeWave(wave.tasks);
  actions.launched = {next_wave_++,
                      wave.executor,
                      static_cast<int>(wave.tasks.size()),
                      wave.size,
                      bytes_before - queue_.bytes(),
                      wave.predicted,
                      wave.reason};
  runners_[wave.executor].Begin(actions.launched, now);
}

void BatcherCore::CarryOut(Actions actions) {
  if (Observer* observer = options_.observer) {
    for (const EndedWave& ended : actions.done) {
      observer->OnWaveDone(ended.wave.executor, ended.wave.rows,
                           ended.wave.size, ended.duration);
    }
    for (const DroppedTask& dropped : actions.dropped) {
      observer->OnDrop(dropped.reason, dropped.priority);
    }
    if (!actions.wave.empty()) {
      const LaunchedWave& launched = actions.launched;
      observer->OnLaunch(launched.executor, launched.rows, launched.size,
                         launched.reason);
    }
  }
  // The device first: it must not wait for those who are told.
  if (!actions.wave.empty()) {
    const int executor = actions.launched.executor;
    const std::uint64_t wave = actions.launched.id;
    sink_.Launch(executor, std::move(actions.wave),
                 [this, executor, wave] { WaveDone(executor, wave); });
  }
  for (DroppedTask& dropped : actions.dropped) {
    sink_.Drop(std::move(dropped.task), dropped.reason);
  }
}

void BatcherCore::WaveDone(int executor, std::uint64_t wave) {
  MutexLock lock(mutex_);
  completions_.push_back({executor, wave, options_.clock->Now()});
  WakeLocked();
}

void BatcherCore::WakeLocked() {
  woken_ = true;
  // Under the lock: after it the batch thread may end and the batcher with it.
  wake_.NotifyOne();
}

bool BatcherCore::NothingRuns() const {
  return !acting_ && completions_.empty() &&
         std::all_of(runners_.begin(), runners_.end(),
                     [](const BatchRunner& runner) { return runner.idle(); });
}

bool BatcherCore::Served(std::uint64_t compatibility) const {
  return std::any_of(runners_.begin(), runners_.end(),
                     [&](const BatchRunner& runner) {
                       return CanRun(runner.executor(), compatibility);
                     });
}

std::vector<ExecutorState> BatcherCore::States(absl::Time now) const {
  std::vector<ExecutorState> states;
  states.reserve(runners_.size());
  for (const BatchRunner& runner : runners_) {
    states.push_back(runner.State(now));
  }
  return states;
}

std::size_t BatcherCore::BytesNow() const {
  std::size_t bytes = queue_.bytes();
  for (const BatchRunner& runner : runners_) bytes += runner.bytes();
  return bytes;
}

Load BatcherCore::LoadFor(const TaskTraits& traits, absl::Time now) const {
  return {.rows = queue_.rows(),
          .bytes = BytesNow(),
          .rows_of_client = queue_.rows_of(traits.client),
          .ahead = AheadOf(traits.compatibility, now),
          .phase = phase_};
}

Ahead BatcherCore::AheadOf(std::uint64_t compatibility, absl::Time now) const {
  Ahead ahead;
  std::set<const void*> devices;
  for (const BatchRunner& runner : runners_) {
    const ExecutorTraits& executor = runner.executor();
    if (!CanRun(executor, compatibility)) continue;
    ahead.executors.push_back(runner.State(now));
    devices.insert(executor.device());
  }
  for (const TaskTraits* task : queue_.admitted()) {
    if (ServedBy(devices, task->compatibility)) ahead.tasks.push_back(task);
  }
  return ahead;
}

bool BatcherCore::ServedBy(const std::set<const void*>& devices,
                           std::uint64_t compatibility) const {
  return std::any_of(runners_.begin(), runners_.end(),
                     [&](const BatchRunner& runner) {
                       return CanRun(runner.executor(), compatibility) &&
                              devices.contains(runner.executor().device());
                     });
}

// What nobody serves is about to be dropped.
QueueGauges BatcherCore::GaugesNow(absl::Time now) const {
  std::set<std::uint64_t> keys;
  for (const TaskTraits* task : queue_.admitted()) {
    keys.insert(task->compatibility);
  }
  QueueGauges gauges{queue_.rows(), BytesNow(), absl::ZeroDuration()};
  for (const std::uint64_t key : keys) {
    const Ahead ahead = AheadOf(key, now);
    if (ahead.executors.empty()) continue;
    const Forecast forecast =
        ForeseeAll(ahead, now, options_.dispatch.efficiency_slack);
    gauges.predicted = std::max(gauges.predicted, forecast.answer);
  }
  return gauges;
}

void BatcherCore::Resize(TaskId id, std::size_t bytes) {
  MutexLock lock(mutex_);
  queue_.Resize(id, bytes);
}

void BatcherCore::SetCost(TaskId id, int cameras, int prompt_tokens) {
  MutexLock lock(mutex_);
  queue_.SetCost(id, cameras, prompt_tokens);
}

void BatcherCore::Release(TaskId id) {
  MutexLock lock(mutex_);
  queue_.Release(id);
  WakeLocked();  // a wave that waited for this task need not
}

}  // namespace piserve::batching
