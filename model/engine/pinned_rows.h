// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "model/engine/network.h"
#include "model/policy.h"
#include "model/variant.h"

namespace piserve::engine {

// Pinned host memory of a wave of up to `rows` rows.
class PinnedRows {
 public:
  PinnedRows(const Variant& variant, int rows);

  SlotRow row(int index);
  HostWave wave() const;

 private:
  at::Tensor pixels_, camera_mask_, tokens_, token_counts_, state_, noise_,
      actions_;
};

}  // namespace piserve::engine
