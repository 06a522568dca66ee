// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/policy.h"
#include "model/variant.h"

namespace piserve::engine {

// The least that a wave could take on one H200, milliseconds: every product of
// the network at the best rate that GEMMs reach there, every weight and cached
// key of a step read once at the memory's best rate, nothing in between.
double FloorMs(const Variant& variant, const WaveShape& shape);

}  // namespace piserve::engine
