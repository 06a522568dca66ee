// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/clock.h"
#include "batching/mutex.h"
#include "prometheus/metric_family.h"

namespace piserve::server {

// All metrics at one time of a batching::Clock.
struct MetricsSnapshot {
  absl::Time time;
  std::vector<prometheus::MetricFamily> metrics;
};

// Oldest first.
using MetricsSnapshots = std::vector<std::shared_ptr<const MetricsSnapshot>>;

// What happened between two snapshots of one process: counters and histograms
// less what they were, gauges as they are now. A series that is new counts from
// zero.
std::vector<prometheus::MetricFamily> Since(
    const std::vector<prometheus::MetricFamily>& before,
    const std::vector<prometheus::MetricFamily>& now);

// The last minutes of the metrics, so that a page can show what is going on
// instead of what has happened since the start. Takes a snapshot at its
// construction and every `interval` from then on, on a thread of its own, and
// keeps the last `kept`. Thread-safe.
class MetricsHistory {
 public:
  struct Options {
    // Called from any thread, one at a time.
    std::function<std::vector<prometheus::MetricFamily>()> collect;
    absl::Duration interval = absl::Seconds(5);
    std::size_t kept = 61;
    const batching::Clock* clock = &batching::Clock::Real();
  };

  explicit MetricsHistory(Options options);
  ~MetricsHistory();
  MetricsHistory(const MetricsHistory&) = delete;
  MetricsHistory& operator=(const MetricsHistory&) = delete;

  // What is kept, and at the end a snapshot taken now.
  MetricsSnapshots Get();

 private:
  std::shared_ptr<const MetricsSnapshot> Take();
  void Run();

  const Options options_;
  batching::Mutex collecting_;
  batching::Mutex mutex_;
  batching::CondVar wake_;
  std::deque<std::shared_ptr<const MetricsSnapshot>> kept_
      ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last
};

}  // namespace piserve::server
