// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

#include "absl/time/time.h"

namespace piserve::client {

// The robot's monotonic clock; a test brings its own. Thread-safe.
class Clock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;

  virtual ~Clock() = default;
  virtual TimePoint Now() = 0;
  virtual void SleepFor(absl::Duration duration) = 0;

  // Lives as long as the process.
  static Clock& Steady();
};

// `wait` for a condition variable, whose time has an end: a year is as good as
// ever.
std::chrono::nanoseconds Bounded(absl::Duration wait);

}  // namespace piserve::client
