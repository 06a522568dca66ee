// SPDX-License-Identifier: Apache-2.0
//
// Many threads at once, on the real clock. Meant for ThreadSanitizer; what it
// asserts holds under any interleaving.
#include <gtest/gtest.h>

#include <atomic>
#include <deque>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "batching/batcher.h"
#include "batching/mutex.h"
#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

// One request's fate. Shared by the thread that made it and those that end it.
struct Fate {
  std::atomic<int> launched = 0;
  std::atomic<int> dropped = 0;
  std::uint64_t compatibility = 0;
  bool cancelled = false;  // before it was enqueued
};

// Moved along, never copied.
struct Task {
  explicit Task(Fate* fate) : fate(fate) {}
  Task(Task&&) = default;
  Task& operator=(Task&&) = default;
  Fate* fate;
  std::unique_ptr<int> payload = std::make_unique<int>(1);
};

// Ends its waves on a thread of its own, as a device does.
class ThreadedDevice : public FakeExecutorTraits<Executor<Task>> {
 public:
  ThreadedDevice() {
    fake.base = absl::Microseconds(50);
    fake.per_row = absl::Microseconds(5);
    thread_ = std::thread([this] { Run(); });
  }
  ~ThreadedDevice() override {
    {
      MutexLock lock(mutex_);
      stop_ = true;
      changed_.NotifyOne();
    }
    thread_.join();
  }

  bool healthy() const override { return healthy_; }
  void Break() { healthy_ = false; }
  bool mixed() const { return mixed_; }
  int most_in_flight() const { return most_in_flight_; }

  void Launch(std::vector<Task> wave, std::function<void()> done) override {
    MutexLock lock(mutex_);
    for (const Task& task : wave) {
      if (task.fate->compatibility != wave[0].fate->compatibility) {
        mixed_ = true;
      }
    }
    waves_.emplace_back(std::move(wave), std::move(done));
    most_in_flight_ = std::max<int>(most_in_flight_, ++in_flight_);
    changed_.NotifyOne();
  }

 private:
  void Run() {
    while (true) {
      std::pair<std::vector<Task>, std::function<void()>> next;
      {
        MutexLock lock(mutex_);
        while (waves_.empty() && !stop_) changed_.Wait(mutex_);
        if (waves_.empty()) return;
        next = std::move(waves_.front());
        waves_.pop_front();
      }
      for (Task& task : next.first) task.fate->launched += *task.payload;
      --in_flight_;
      next.second();
    }
  }

  std::atomic<bool> healthy_ = true;
  std::atomic<bool> mixed_ = false;
  std::atomic<int> in_flight_ = 0;
  std::atomic<int> most_in_flight_ = 0;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::pair<std::vector<Task>, std::function<void()>>> waves_
      ABSL_GUARDED_BY(mutex_);
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

class AtomicObserver : public Observer {
 public:
  void OnLaunch(int, int rows, int, LaunchReason) override { launched += rows; }
  void OnWaveDone(int, int rows, int, absl::Duration) override { done += rows; }
  void OnDrop(DropReason, Class) override { ++dropped; }
  void OnReject(RejectReason, Class) override { ++rejected; }
  std::atomic<int> launched = 0, done = 0, dropped = 0, rejected = 0;
};

class BatcherStressTest : public testing::Test {
 protected:
  static constexpr int kThreads = 8;
  static constexpr int kEach = 1500;

  void Build(Limits limits) {
    std::vector<std::unique_ptr<Executor<Task>>> executors;
    for (int i = 0; i < 2; ++i) {
      auto device = std::make_unique<ThreadedDevice>();
      devices_.push_back(device.get());
      executors.push_back(std::move(device));
    }
    Batcher<Task>::Options options;
    options.limits = limits;
    options.observer = &observer_;
    options.dropped = [](Task task, DropReason) {
      task.fate->dropped += *task.payload;
    };
    batcher_ = std::make_unique<Batcher<Task>>(std::move(options),
                                               std::move(executors));
  }

  TaskTraits Draw(std::mt19937& random, int thread) {
    const absl::Time now = Clock::Real().Now();
    TaskTraits traits;
    traits.arrival = now;
    traits.deadline = now + absl::Microseconds(100 + random() % 20000);
    if (random() % 8 == 0) {
      traits.stale_at = now + absl::Microseconds(random() % 500);
    }
    traits.priority = static_cast<Class>(random() % 3);
    traits.client = thread;
    traits.bytes = random() % 1000;
    traits.compatibility = random() % 2;
    if (random() % 4 == 0) {
      traits.identity = SupersedeKey{random() % 4, random() % 1000};
      traits.supersede_older = true;
    }
    return traits;
  }

  std::variant<Ticket, Rejection> AdmitPatiently(std::mt19937& random,
                                                 int thread, Fate& fate) {
    for (int tries = 0;; ++tries) {
      const TaskTraits traits = Draw(random, thread);
      fate.compatibility = traits.compatibility;
      auto admitted = batcher_->Admit(traits);
      if (std::holds_alternative<Ticket>(admitted)) return admitted;
      ++rejected_;
      if (tries == 100) return admitted;
      std::this_thread::yield();
    }
  }

  // A client's life: admit, and then enqueue, or give up, or cancel.
  void Client(int thread, std::vector<Fate>& fates) {
    std::mt19937 random(thread);
    TaskId last = 0;
    for (Fate& fate : fates) {
      ++attempts_;
      auto admitted = AdmitPatiently(random, thread, fate);
      if (std::holds_alternative<Rejection>(admitted)) continue;
      Ticket ticket = std::get<Ticket>(std::move(admitted));
      if (random() % 16 == 0) continue;
      ticket.Resize(random() % 2000);
      ticket.SetCost(static_cast<int>(random() % 4), 10);
      const TaskId id = ticket.id();
      if (random() % 16 == 0) {
        fate.cancelled = true;
        batcher_->Cancel(id);
      }
      ++enqueued_;
      batcher_->Enqueue(std::move(ticket), Task(&fate));
      if (random() % 8 == 0) batcher_->Cancel(random() % 2 == 0 ? id : last);
      last = id;
      const QueueGauges gauges = batcher_->gauges();
      EXPECT_LE(gauges.rows, 32);
    }
  }

  template <typename Meanwhile>
  void RunClients(const Meanwhile& meanwhile) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([this, i] { Client(i, fates_[i]); });
    }
    meanwhile();
    for (std::thread& thread : threads) thread.join();
  }

  void ExpectEachEndedOnce() {
    int launched = 0;
    int dropped = 0;
    for (const auto& fates : fates_) {
      for (const Fate& fate : fates) {
        EXPECT_LE(fate.launched + fate.dropped, 1);
        if (fate.cancelled) {
          EXPECT_EQ(fate.launched, 0);
        }
        launched += fate.launched;
        dropped += fate.dropped;
      }
    }
    EXPECT_EQ(launched + dropped, enqueued_);
    RecordProperty("launched", launched);
    RecordProperty("dropped", dropped);
    EXPECT_EQ(observer_.launched, launched);
    EXPECT_EQ(observer_.done, launched);
    EXPECT_EQ(observer_.dropped, dropped);
    EXPECT_EQ(observer_.rejected, rejected_);
  }

  AtomicObserver observer_;
  std::vector<ThreadedDevice*> devices_;  // owned by batcher_
  std::unique_ptr<Batcher<Task>> batcher_;
  std::vector<std::vector<Fate>> fates_ = [] {
    std::vector<std::vector<Fate>> all;
    for (int i = 0; i < kThreads; ++i) all.emplace_back(kEach);
    return all;
  }();
  std::atomic<int> attempts_ = 0;
  std::atomic<int> enqueued_ = 0;
  std::atomic<int> rejected_ = 0;
};

constexpr Limits kSmall{32, 1 << 20, absl::Seconds(1), 32};

TEST_F(BatcherStressTest, EveryTaskEndsExactlyOnce) {
  Build(kSmall);
  RunClients([] {});
  for (const ThreadedDevice* device : devices_) {
    EXPECT_FALSE(device->mixed());
    EXPECT_LE(device->most_in_flight(), 2);
  }
  batcher_.reset();
  ExpectEachEndedOnce();
}

TEST_F(BatcherStressTest, EveryTaskEndsExactlyOnceWhenDrained) {
  Build(kSmall);
  RunClients([this] {
    while (attempts_ < 6000) std::this_thread::yield();
    batcher_->Drain(Clock::Real().Now() + absl::Seconds(5));
  });
  while (!batcher_->idle()) std::this_thread::yield();
  ExpectEachEndedOnce();
  batcher_.reset();
  ExpectEachEndedOnce();
}

TEST_F(BatcherStressTest, EveryTaskEndsExactlyOnceWhenDevicesFail) {
  Build(kSmall);
  RunClients([this] {
    while (attempts_ < 3000) std::this_thread::yield();
    devices_[0]->Break();
    batcher_->CheckHealth();
    while (attempts_ < 6000) std::this_thread::yield();
    devices_[1]->Break();
    batcher_->CheckHealth();
  });
  batcher_.reset();
  ExpectEachEndedOnce();
}

TEST_F(BatcherStressTest, DestroyedUnderLoadItStillEndsEveryTask) {
  for (int round = 0; round < 200; ++round) {
    Build(kSmall);
    for (int i = 0; i < 8; ++i) {
      TaskTraits traits;
      traits.arrival = Clock::Real().Now();
      traits.deadline = traits.arrival + absl::Seconds(5);
      auto admitted = batcher_->Admit(traits);
      ASSERT_TRUE(std::holds_alternative<Ticket>(admitted));
      ++enqueued_;
      batcher_->Enqueue(std::get<Ticket>(std::move(admitted)),
                        Task(&fates_[i][round]));
    }
    batcher_.reset();
    devices_.clear();
  }
  ExpectEachEndedOnce();
}

}  // namespace
}  // namespace piserve::batching
