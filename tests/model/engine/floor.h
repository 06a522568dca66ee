// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/policy.h"
#include "model/variant.h"

namespace piserve::engine {

// The best rate of bf16 GEMMs that was seen on one H200.
inline constexpr double kGemmTflops = 790;

// The least that a wave could take on one H200, milliseconds: every product of
// the network at `tflops`, every weight and cached key of a step read once at
// the memory's best rate, nothing in between.
double FloorMs(const Variant& variant, const WaveShape& shape,
               double tflops = kGemmTflops);

}  // namespace piserve::engine
