// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/strings/string_view.h"
#include "model/engine/launcher.h"
#include "model/engine/weights.h"
#include "model/kernels/prefix.h"
#include "model/variant.h"

namespace piserve::engine {

// Operations 2 to 4 of docs/pi0.md 2.6: queries, keys and values of `x`,
// rotated, and the way of the latter two to the cache.
struct HeadProjection {
  absl::string_view what;  // for messages
  const GemmaSize& size;
  const RowOrders& order;  // of `w`
  const at::Tensor& x;     // [.., size.width]
  const at::Tensor& w;     // Layer::qkv
  // Where results go; `order` is set by the call.
  kernels::RopeScatterArgs to;
};

// In one kernel where the weights are ordered for it and rows enough, else in
// two.
void EnqueueHeadProjection(const HeadProjection& projection,
                           Launcher& launcher);

}  // namespace piserve::engine
