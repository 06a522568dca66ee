// SPDX-License-Identifier: Apache-2.0
#include "model/reference/live_cost.h"

#include <algorithm>
#include <cmath>

namespace piserve::reference {
namespace {

// How much of the way to a slower row the ratio goes.
constexpr double kSlower = 1.0 / 8;
constexpr double kLowestDoubt = 1.0 / 16;

// Idle for this long, or for this many times the prediction, halves it: the
// slower the policy, the dearer is a request that was let in for nothing.
constexpr absl::Duration kIdleHalving = absl::Seconds(2);
constexpr int kIdleHalvingWaves = 20;

double DoubtAfter(absl::Duration idle, absl::Duration predicted) {
  const absl::Duration halving =
      std::max(kIdleHalving, predicted * kIdleHalvingWaves);
  const double halvings = std::floor(absl::FDivDuration(idle, halving));
  return std::clamp(std::exp2(-halvings), kLowestDoubt, 1.0);
}

}  // namespace

void LiveCost::Reset(const CostModel& model, absl::Time now) {
  const std::lock_guard lock(mutex_);
  model_ = model;
  ratio_ = 1;
  last_row_ = now;
}

absl::Duration LiveCost::Predict(const WaveShape& shape, Load load,
                                 absl::Time now) const {
  const std::lock_guard lock(mutex_);
  const absl::Duration predicted = model_.Predict(shape) * ratio_;
  if (load == Load::kBusy) return predicted;
  return predicted * DoubtAfter(now - last_row_, predicted);
}

void LiveCost::Observe(const WaveShape& row, absl::Duration took,
                       absl::Time now) {
  const std::lock_guard lock(mutex_);
  last_row_ = now;
  const absl::Duration fitted = model_.Predict(row);
  if (fitted <= absl::ZeroDuration()) return;
  const double ratio = std::min(absl::FDivDuration(took, fitted), 1.0);
  ratio_ = ratio < ratio_ ? ratio : ratio_ + (ratio - ratio_) * kSlower;
}

}  // namespace piserve::reference
