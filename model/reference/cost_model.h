// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/time/time.h"
#include "model/policy.h"
#include "model/reference/wave_worker.h"

namespace piserve::reference {

// One row that was timed.
struct CostSample {
  int cameras = 0;
  int prompt_tokens = 0;
  int steps = 1;
  RowTimes times;
};

// Time of a wave whose rows run one after another: vision grows with the
// cameras; prefill, and each step, with the valid prefix tokens.
class CostModel {
 public:
  // From two rows of different prefix lengths; `large` has a camera and more
  // prefix tokens.
  static CostModel Fit(int tokens_per_camera, const CostSample& small,
                       const CostSample& large);

  absl::Duration Predict(const WaveShape& shape) const;

 private:
  // base + slope * prefix tokens, through two points; never falling.
  struct Line {
    absl::Duration base, slope;
    static Line Through(int x0, absl::Duration y0, int x1, absl::Duration y1);
    absl::Duration At(int x) const { return base + slope * x; }
  };

  int tokens_per_camera_ = 0;
  absl::Duration camera_;
  Line prefill_;
  Line step_;
};

}  // namespace piserve::reference
