// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/base/thread_annotations.h"
#include "absl/time/time.h"
#include "batching/mutex.h"

namespace piserve::server {

// Predicted times of all waves that the policies of one device have given it,
// and of those that it has done. Thread-safe.
class DeviceWork {
 public:
  struct Totals {
    absl::Duration given, done;
  };

  void Give(absl::Duration predicted) {
    batching::MutexLock lock(mutex_);
    totals_.given += predicted;
  }
  void Finish(absl::Duration predicted) {
    batching::MutexLock lock(mutex_);
    totals_.done += predicted;
  }
  Totals totals() const {
    batching::MutexLock lock(mutex_);
    return totals_;
  }

 private:
  mutable batching::Mutex mutex_;
  Totals totals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace piserve::server
