// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "batching/batcher.h"
#include "tests/batching/puppet.h"

namespace piserve::batching {

using Drops = std::vector<std::pair<int, DropReason>>;

// Counts what it is told; all of it must add up.
class CountingObserver : public Observer {
 public:
  void OnQueue(const QueueGauges& now) override { gauges = now; }
  void OnLaunch(int, int rows, int size, LaunchReason reason) override {
    launches.emplace_back(rows, size, reason);
  }
  void OnWaveDone(int, int, int, absl::Duration time) override {
    times.push_back(time);
  }
  void OnDrop(DropReason reason, Class) override { drops.push_back(reason); }
  void OnReject(RejectReason reason, Class) override {
    rejects.push_back(reason);
  }

  QueueGauges gauges;
  std::vector<std::tuple<int, int, LaunchReason>> launches;
  std::vector<absl::Duration> times;
  std::vector<DropReason> drops;
  std::vector<RejectReason> rejects;
};

class BatcherTest : public testing::Test {
 protected:
  ~BatcherTest() override {
    // Nothing may wait for a wave that nobody will end.
    if (batcher_) Finish();
  }

  PuppetExecutor& AddExecutor(FakeTraits traits = {}) {
    executors_.push_back(std::make_unique<PuppetExecutor>(std::move(traits)));
    puppets_.push_back(executors_.back().get());
    return *puppets_.back();
  }

  void Build(Limits limits = {}) {
    if (executors_.empty()) AddExecutor();
    std::vector<std::unique_ptr<Executor<int>>> all;
    for (auto& executor : executors_) all.push_back(std::move(executor));
    Batcher<int>::Options options;
    options.limits = limits;
    options.clock = &clock_;
    options.observer = &observer_;
    options.dropped = [this](int task, DropReason reason) {
      drops_.emplace_back(task, reason);
    };
    options.drive = Drive::kManual;
    batcher_ =
        std::make_unique<Batcher<int>>(std::move(options), std::move(all));
  }

  TaskTraits Traits(double deadline_ms = 1000) {
    TaskTraits traits;
    traits.arrival = clock_.Now();
    traits.deadline = At(deadline_ms);
    traits.client = next_client_++;
    traits.bytes = 10;
    return traits;
  }

  Ticket Admit(const TaskTraits& traits) {
    auto admitted = batcher_->Admit(traits);
    EXPECT_TRUE(std::holds_alternative<Ticket>(admitted));
    return std::get<Ticket>(std::move(admitted));
  }
  Rejection Refuse(const TaskTraits& traits) {
    auto admitted = batcher_->Admit(traits);
    EXPECT_TRUE(std::holds_alternative<Rejection>(admitted));
    return std::get<Rejection>(admitted);
  }
  TaskId Enqueue(int task, const TaskTraits& traits) {
    Ticket ticket = Admit(traits);
    const TaskId id = ticket.id();
    batcher_->Enqueue(std::move(ticket), task);
    return id;
  }
  TaskId Enqueue(int task) { return Enqueue(task, Traits()); }

  absl::Time PollAt(double ms) {
    clock_.AdvanceTo(At(ms));
    return batcher_->Poll();
  }
  void FinishAt(double ms, int executor = 0) {
    clock_.AdvanceTo(At(ms));
    puppets_[executor]->FinishOne();
    batcher_->Poll();
  }
  // Makes the executor busy until 6.5 ms with task 0.
  void Occupy() {
    Enqueue(0);
    PollAt(0);
    ASSERT_EQ(waves().size(), 1);
  }
  void Finish() {
    batcher_->Poll();
    for (std::size_t i = 0; i < puppets_.size();) {
      if (puppets_[i]->pending.empty()) {
        ++i;
        continue;
      }
      puppets_[i]->FinishOne();
      batcher_->Poll();
      i = 0;
    }
  }
  std::vector<std::vector<int>>& waves(int executor = 0) {
    return puppets_[executor]->launched;
  }

  FakeClock clock_;
  CountingObserver observer_;
  Drops drops_;
  std::vector<std::unique_ptr<PuppetExecutor>> executors_;
  std::vector<PuppetExecutor*> puppets_;
  std::unique_ptr<Batcher<int>> batcher_;
  std::uint64_t next_client_ = 1;
};

}  // namespace piserve::batching
