// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/reference/precision.h"
#include "model/rope_table.h"

namespace piserve::reference {

// How a network computes. The engine's oracle is kFloat32 with
// WeightRounding::kBf16Mode and RopeTable::kBf16, on the engine's device.
struct Options {
  Precision compute = Precision::kBFloat16;
  WeightRounding weights = WeightRounding::kBf16Mode;
  RopeTable rope = RopeTable::kBf16;
  Layout layout = Layout::kCompact;
  at::Device device = at::kCPU;

  // The two modes of openpi (docs/pi0.md 0).
  static Options For(Precision precision) {
    if (precision == Precision::kBFloat16) return {};
    return {.compute = Precision::kFloat32,
            .weights = WeightRounding::kAsFile,
            .rope = RopeTable::kExact};
  }

  // Of activations.
  at::ScalarType dtype() const {
    return compute == Precision::kBFloat16 ? at::kBFloat16 : at::kFloat;
  }
};

}  // namespace piserve::reference
