// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"

namespace piserve::batching {

// Monotonic time. Values are comparable within one process only; they are not
// wall-clock times.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;

  static const Clock& Real();  // std::chrono::steady_clock
};

}  // namespace piserve::batching
