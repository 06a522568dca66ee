// SPDX-License-Identifier: Apache-2.0
#include "batching/clock.h"

#include <chrono>

namespace piserve::batching {
namespace {

class SteadyClock : public Clock {
 public:
  // The epoch is the steady clock's own; only differences mean anything.
  absl::Time Now() const override {
    return absl::UnixEpoch() +
           absl::FromChrono(
               std::chrono::steady_clock::now().time_since_epoch());
  }
};

}  // namespace

const Clock& Clock::Real() {
  static const SteadyClock clock;
  return clock;
}

}  // namespace piserve::batching
