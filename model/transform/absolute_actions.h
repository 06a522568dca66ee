// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

namespace piserve::transform {

// openpi's make_bool_mask: n > 0 is n times true, n < 0 is -n times false.
std::vector<bool> MakeBoolMask(std::span<const int> runs);

// Adds the state to the dimensions that the model gives relative to it, one
// step in place.
//   state   robot units, at least as long as `mask`
//   action  robot units, at least as long as `mask`
// Source: openpi transforms.py AbsoluteActions.
void MakeAbsolute(const std::vector<bool>& mask, std::span<const double> state,
                  std::span<double> action);

}  // namespace piserve::transform
