// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "batching/clock.h"
#include "batching/executor.h"
#include "batching/observer.h"
#include "batching/task.h"

namespace piserve::batching {

inline absl::Duration Ms(double ms) { return absl::Milliseconds(ms); }

// The time 0 of the tests, and moments after it.
inline absl::Time At(double ms) { return absl::UnixEpoch() + Ms(ms); }

// Stands still until it is moved.
class FakeClock : public Clock {
 public:
  absl::Time Now() const override { return now_; }
  void AdvanceTo(absl::Time now) { now_ = std::max(now_, now); }

 private:
  absl::Time now_ = At(0);
};

// An executor as the dispatch rule sees it. A wave of B rows takes
// base + per_row * B, or what `table` says.
struct FakeTraits {
  std::vector<int> sizes = {1, 2, 4, 8, 16, 32, 64};
  int slots = 2;
  absl::Duration base = Ms(6);
  absl::Duration per_row = Ms(0.5);
  std::map<int, absl::Duration> table;
  absl::Duration per_camera;       // per wave
  std::set<std::uint64_t> serves;  // empty: all
  const void* device = nullptr;    // null: its own
  bool healthy = true;

  absl::Duration Time(const WaveCost& cost) const {
    const auto it = table.find(cost.rows);
    return (it != table.end() ? it->second : base + per_row * cost.rows) +
           per_camera * cost.cameras;
  }
};

template <typename Base>
class FakeExecutorTraits : public Base {
 public:
  FakeExecutorTraits() = default;
  explicit FakeExecutorTraits(FakeTraits traits) : fake(std::move(traits)) {}

  const std::vector<int>& sizes() const override { return fake.sizes; }
  int slots() const override { return fake.slots; }
  const void* device() const override {
    return fake.device != nullptr ? fake.device : this;
  }
  bool Serves(std::uint64_t compatibility) const override {
    return fake.serves.empty() || fake.serves.count(compatibility) > 0;
  }
  absl::Duration Predict(const WaveCost& cost) const override {
    return fake.Time(cost);
  }
  bool healthy() const override { return fake.healthy; }

  FakeTraits fake;
};

// Keeps what it is given until the test says that the wave is done.
class PuppetExecutor : public FakeExecutorTraits<Executor<int>> {
 public:
  using FakeExecutorTraits::FakeExecutorTraits;

  void Launch(std::vector<int> wave, std::function<void()> done) override {
    launched.push_back(std::move(wave));
    pending.push_back(std::move(done));
  }

  // The first wave that is not done is done.
  void FinishOne() {
    std::function<void()> done = std::move(pending.front());
    pending.pop_front();
    done();
  }

  std::vector<std::vector<int>> launched;
  std::deque<std::function<void()>> pending;
};

}  // namespace piserve::batching
