// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/clock.h"

#include <algorithm>

#include "absl/time/clock.h"

namespace piserve::client {
namespace {

class SteadyClock final : public Clock {
 public:
  TimePoint Now() override { return std::chrono::steady_clock::now(); }
  void SleepFor(absl::Duration duration) override { absl::SleepFor(duration); }
};

}  // namespace

Clock& Clock::Steady() {
  static SteadyClock* const clock = new SteadyClock;
  return *clock;
}

std::chrono::nanoseconds Bounded(absl::Duration wait) {
  return absl::ToChronoNanoseconds(std::min(wait, absl::Hours(24 * 365)));
}

}  // namespace piserve::client
