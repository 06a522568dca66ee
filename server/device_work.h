// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/mutex.h"

namespace piserve::server {

// Predicted times of the waves that the policies of one device have given it,
// and of those that it has done; and how long it was busy. Thread-safe.
class DeviceWork {
 public:
  struct Totals {
    absl::Duration given, done;
    int policies = 0;  // that have ever given it a wave
  };

  void Give(int policy, absl::Duration predicted, absl::Time now) {
    batching::MutexLock lock(mutex_);
    totals_[policy].given += Counted(predicted);
    if (running_++ == 0) busy_from_ = now;
  }
  // For how long the device has had a wave, whosever, that no earlier call
  // told.
  absl::Duration Finish(int policy, absl::Duration predicted, absl::Time now) {
    batching::MutexLock lock(mutex_);
    totals_[policy].done += Counted(predicted);
    --running_;
    const absl::Time from = busy_from_;
    busy_from_ = std::max(from, now);
    return busy_from_ - from;
  }
  // Of all policies but this one.
  Totals Beside(int policy) const {
    batching::MutexLock lock(mutex_);
    Totals sum;
    for (const auto& [other, totals] : totals_) {
      if (other == policy) continue;
      sum.given += totals.given;
      sum.done += totals.done;
      ++sum.policies;
    }
    return sum;
  }

 private:
  // A sum can bear no infinity, which is predicted of an unmeasured shape.
  static absl::Duration Counted(absl::Duration predicted) {
    return std::min(predicted, absl::Hours(1));
  }

  mutable batching::Mutex mutex_;
  std::map<int, Totals> totals_ ABSL_GUARDED_BY(mutex_);
  int running_ ABSL_GUARDED_BY(mutex_) = 0;       // waves given and not done
  absl::Time busy_from_ ABSL_GUARDED_BY(mutex_);  // and not told of
};

}  // namespace piserve::server
