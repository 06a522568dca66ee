// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "batching/batcher_core.h"
#include "batching/clock.h"
#include "batching/dispatch_rule.h"
#include "batching/executor.h"
#include "batching/observer.h"
#include "batching/task.h"
#include "batching/ticket.h"

namespace piserve::batching {

// Collects tasks into waves and launches them on its executors. `Task` is any
// movable type; its batching-relevant facts come beside it as TaskTraits.
//
// Life of a task: Admit reserves room before the expensive preparation, Enqueue
// hands the prepared task over. From then on the batcher owns it, and it ends
// exactly once: moved into Executor::Launch, or into `dropped`. An admitted
// task that is never enqueued ends with its Ticket; nobody is told.
//
// Order: class first (kControl, kEvaluation, kBulk); inside a class every
// client's first task goes before any client's second, and among those the
// earliest deadline goes first. Only tasks of equal compatibility share a wave.
// dispatch_rule.h says which wave is launched when.
//
// Honoured up to the launch: deadline, stale_at, cancellation, supersession. A
// task that is past one of them is dropped, never launched. A task that would
// miss its deadline by the measured times is not launched either; it waits for
// a faster chance and expires at its deadline.
//
// Bounded in rows, bytes, predicted waiting time and rows per client.
//
// Threads: all methods may be called from any thread and none blocks on a
// device, on an executor or on a callback. Launch and `dropped` are called by
// the batch thread alone, under no lock, and may call the batcher.
template <typename Task>
class Batcher : private BatcherCore::Sink {
 public:
  using Limits = batching::Limits;
  using Rejection = batching::Rejection;
  using Ticket = batching::Ticket;

  struct Options {
    Limits limits;
    DispatchOptions dispatch;
    const Clock* clock = &Clock::Real();  // outlives the batcher
    Observer* observer = nullptr;         // outlives the batcher; may be null
    // The task ended unlaunched. Required; must not block.
    std::function<void(Task, DropReason)> dropped;
    Drive drive = Drive::kThread;
  };

  Batcher(Options options, std::vector<std::unique_ptr<Executor<Task>>> all)
      : dropped_(std::move(options.dropped)), executors_(std::move(all)) {
    std::vector<const ExecutorTraits*> traits;
    for (const auto& executor : executors_) traits.push_back(executor.get());
    core_ = std::make_unique<BatcherCore>(
        CoreOptions{options.limits, options.dispatch, options.clock,
                    options.observer, options.drive},
        std::move(traits), static_cast<BatcherCore::Sink&>(*this));
  }

  // Drops what waits (kShutdown) and returns when every launched wave is done.
  // No other call may be running or follow, and no Ticket may be left.
  ~Batcher() override { core_->Shutdown(); }

  // Decides whether a task may come in and reserves its room. A deadline that
  // is past, or that the measured times say cannot be met, is refused here.
  std::variant<Ticket, Rejection> Admit(const TaskTraits& traits) {
    return core_->Admit(traits);
  }

  // Takes the task over. Never fails: an accepted task is launched or dropped.
  void Enqueue(Ticket ticket, Task task) {
    core_->Enqueue(std::move(ticket), std::make_unique<Held>(std::move(task)));
  }

  // Drops the task with kCancelled if it is admitted and not launched yet, also
  // when it is enqueued later; otherwise does nothing.
  void Cancel(TaskId id) { core_->Cancel(id); }

  // Refuses new tasks from now on, brings every deadline forward to `until` and
  // launches what was accepted. Returns at once; idle() says when it is over.
  // May be called again with an earlier time.
  void Drain(absl::Time until) { core_->Drain(until); }

  // Nothing is admitted, waiting or running, and no callback is under way.
  bool idle() const { return core_->idle(); }

  // As of now; the observer is told after every step of the batch thread.
  QueueGauges gauges() const { return core_->gauges(); }

  // An executor's health has changed. Without it the batcher notices within
  // 100 ms while anything waits.
  void CheckHealth() { core_->Wake(); }

  // With Drive::kManual: does all that is due at the clock's time, as the batch
  // thread would, and returns when there will be more if nothing happens before
  // (InfiniteFuture: never). Not from two threads at once.
  absl::Time Poll() { return core_->Poll(); }

 private:
  struct Held : HeldTask {
    explicit Held(Task task) : task(std::move(task)) {}
    Task task;
  };
  static Task Release(std::unique_ptr<HeldTask> held) {
    return std::move(static_cast<Held&>(*held).task);
  }

  void Launch(int executor, std::vector<std::unique_ptr<HeldTask>> wave,
              std::function<void()> done) override {
    std::vector<Task> tasks;
    tasks.reserve(wave.size());
    for (auto& held : wave) tasks.push_back(Release(std::move(held)));
    executors_[executor]->Launch(std::move(tasks), std::move(done));
  }
  void Drop(std::unique_ptr<HeldTask> held, DropReason reason) override {
    dropped_(Release(std::move(held)), reason);
  }

  const std::function<void(Task, DropReason)> dropped_;
  const std::vector<std::unique_ptr<Executor<Task>>> executors_;
  std::unique_ptr<BatcherCore> core_;  // last: stops before the rest goes
};

}  // namespace piserve::batching
