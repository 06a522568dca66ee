// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace piserve::engine {

// What a large product reaches under lasting load, where the power limit and
// not the specification sets the clock: the roof of large waves.
struct GemmRoof {
  double tflops = 0;
  double watts = 0;
  double mhz = 0;  // of the multiprocessors, as the driver reports it
};

// Of cuBLASLt's bf16 product of 8192 x 8192 x 8192 normal numbers, one after
// another for `duration`; the first half does not count.
absl::StatusOr<GemmRoof> MeasureGemmRoof(absl::Duration duration);

}  // namespace piserve::engine
