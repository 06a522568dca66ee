// SPDX-License-Identifier: Apache-2.0
#include "server/hang_limit.h"

#include <algorithm>

namespace piserve::server {
namespace {

constexpr absl::Duration kReferenceFloor = absl::Seconds(20);
constexpr absl::Duration kEngineFloor = absl::Milliseconds(300);
constexpr absl::Duration kEngineMost = absl::Milliseconds(900);

}  // namespace

absl::Duration HangLimit::After(absl::Duration predicted) const {
  return std::min(predicted * factor + floor, std::max(most, predicted * 1.5));
}

HangLimit HangLimitOf(const WatchdogConfig& config, absl::string_view backend) {
  HangLimit limit{.factor = config.factor, .floor = kReferenceFloor};
  if (config.floor.has_value()) {
    limit.floor = *config.floor;
  } else if (backend == "engine") {
    limit.floor = kEngineFloor;
    limit.most = kEngineMost;
  }
  return limit;
}

}  // namespace piserve::server
