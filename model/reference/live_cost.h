// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <mutex>

#include "absl/time/time.h"
#include "model/policy.h"
#include "model/reference/cost_model.h"

namespace piserve::reference {

// A cost model that was fitted once, corrected by what rows really take, so
// that a start on a busy machine does not refuse deadlines for ever.
//
// Others on the machine only ever add time: a row that was faster than
// predicted is believed at once, slower ones step by step and never beyond the
// fit. Where nothing runs because everything is refused, no row could correct
// anything; hence predictions halve with each long idle time until a request is
// let in, down to a sixteenth. The first row that runs then sets them right.
//
// Thread-safe. Times come from one steady clock.
class LiveCost {
 public:
  enum class Load { kIdle, kBusy };

  LiveCost() = default;  // predicts zero
  void Reset(const CostModel& model, absl::Time now);

  // `load`: kIdle if nothing is running or about to run.
  absl::Duration Predict(const WaveShape& shape, Load load,
                         absl::Time now) const;

  // A row of this shape (rows is 1) took that long.
  void Observe(const WaveShape& row, absl::Duration took, absl::Time now);

 private:
  mutable std::mutex mutex_;  // guards what follows
  CostModel model_;
  double ratio_ = 1;  // of what rows take to what the model says
  absl::Time last_row_;
};

}  // namespace piserve::reference
