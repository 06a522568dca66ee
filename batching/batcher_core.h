// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/admission.h"
#include "batching/batch_runner.h"
#include "batching/clock.h"
#include "batching/dispatch_rule.h"
#include "batching/executor.h"
#include "batching/mutex.h"
#include "batching/observer.h"
#include "batching/task.h"
#include "batching/task_queue.h"
#include "batching/ticket.h"

namespace piserve::batching {

// Who makes the steps: a thread of the batcher's own, or a test through Poll.
enum class Drive { kThread, kManual };

struct CoreOptions {
  Limits limits;
  DispatchOptions dispatch;
  const Clock* clock = nullptr;
  Observer* observer = nullptr;
  Drive drive = Drive::kThread;
};

// The batcher without its task type; batcher.h is the interface and says what
// each method promises.
class BatcherCore {
 public:
  // Where tasks end. Called by the batch thread, under no lock.
  class Sink {
   public:
    virtual ~Sink() = default;
    virtual void Launch(int executor,
                        std::vector<std::unique_ptr<HeldTask>> wave,
                        std::function<void()> done) = 0;
    virtual void Drop(std::unique_ptr<HeldTask> task, DropReason reason) = 0;
  };

  // `sink` and the executors outlive Shutdown.
  BatcherCore(CoreOptions options, std::vector<const ExecutorTraits*> executors,
              Sink& sink);
  ~BatcherCore();

  std::variant<Ticket, Rejection> Admit(const TaskTraits& traits);
  void Enqueue(Ticket ticket, std::unique_ptr<HeldTask> task);
  void Cancel(TaskId id);
  void Drain(absl::Time until);
  void Wake();
  absl::Time Poll();
  bool idle() const;
  QueueGauges gauges() const;

  // Ends the batch thread after every task has ended. Called once, first thing
  // in the owner's destructor.
  void Shutdown();

 private:
  friend class Ticket;

  // What one step takes out of the locked state, to be carried out unlocked.
  struct Actions {
    std::vector<EndedWave> done;
    std::vector<DroppedTask> dropped;
    std::vector<std::unique_ptr<HeldTask>> wave;
    LaunchedWave launched;
    QueueGauges gauges;
    absl::Time again;
    bool any() const {
      return !done.empty() || !dropped.empty() || !wave.empty();
    }
  };
  struct Completion {
    int executor;
    std::uint64_t wave;
    absl::Time at;
  };

  void Run();
  Actions TakeActions() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ChooseWave(absl::Time now, Actions& actions)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CarryOut(Actions actions);
  void WaveDone(int executor, std::uint64_t wave);
  void WakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool NothingRuns() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::vector<ExecutorState> States(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::size_t BytesNow() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Load LoadFor(const TaskTraits& traits, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Ahead AheadOf(std::uint64_t compatibility, absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Whether some healthy executor of these devices serves it.
  bool ServedBy(const std::set<const void*>& devices,
                std::uint64_t compatibility) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  QueueGauges GaugesNow(absl::Time now) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool Served(std::uint64_t compatibility) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // For Ticket.
  void Resize(TaskId id, std::size_t bytes);
  void SetCost(TaskId id, int cameras, int prompt_tokens);
  void Release(TaskId id);

  const CoreOptions options_;
  Sink& sink_;

  mutable Mutex mutex_;
  CondVar wake_;
  TaskQueue queue_ ABSL_GUARDED_BY(mutex_);
  std::vector<BatchRunner> runners_ ABSL_GUARDED_BY(mutex_);
  std::vector<Completion> completions_ ABSL_GUARDED_BY(mutex_);
  std::uint64_t next_wave_ ABSL_GUARDED_BY(mutex_) = 1;
  Phase phase_ ABSL_GUARDED_BY(mutex_) = Phase::kServing;
  bool shutdown_ ABSL_GUARDED_BY(mutex_) = false;
  bool woken_ ABSL_GUARDED_BY(mutex_) = false;
  bool acting_ ABSL_GUARDED_BY(mutex_) = false;  // callbacks are under way

  std::thread thread_;  // last: runs on all of the above
};

}  // namespace piserve::batching
