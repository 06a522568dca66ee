// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>

#include "absl/time/time.h"
#include "model/engine/wave_layout.h"

namespace piserve::engine {

// Measured times of an engine's graphs.
struct CostTable {
  struct Prefix {
    absl::Duration vision, prefill;
  };
  struct Steps {
    absl::Duration first, later;

    absl::Duration Total(int count) const {
      return first + later * (count - 1);
    }
  };
  std::map<PrefixShape, Prefix> prefix;  // of one micro-wave
  std::map<int, Steps> steps;            // by rows
  absl::Duration transfer;               // both ways and launch, of one row

  // A wave from launch to completion. InfiniteDuration if its graphs were
  // never measured.
  absl::Duration Predict(const WaveLayout& layout, int steps) const;
};

}  // namespace piserve::engine
