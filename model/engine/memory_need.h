// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "model/engine/buffers.h"
#include "model/engine/weights.h"
#include "model/rope_table.h"
#include "model/variant.h"

namespace piserve::engine {

// Bytes of all tensors on the current device. Asks torch, not the device.
double TensorBytes();

// Device memory that buffers take, without taking it: bytes are affine in the
// rows of a wave and of a micro-wave.
class MemoryNeed {
 public:
  // Makes the smallest buffers for a moment. FAILED_PRECONDITION if not even
  // those fit.
  static absl::StatusOr<MemoryNeed> Measure(const Variant& variant,
                                            const EngineWeights& weights,
                                            RopeTable rope);

  double Bytes(const Capacity& capacity) const {
    return one_ + (capacity.rows - 1) * row_ +
           (capacity.micro_rows - 1) * micro_row_;
  }

 private:
  double one_ = 0;        // one row of each
  double row_ = 0;        // one more
  double micro_row_ = 0;  // likewise
};

}  // namespace piserve::engine
