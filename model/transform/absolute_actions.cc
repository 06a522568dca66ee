// SPDX-License-Identifier: Apache-2.0
#include "model/transform/absolute_actions.h"

#include <cstdlib>

namespace piserve::transform {

std::vector<bool> MakeBoolMask(std::span<const int> runs) {
  std::vector<bool> mask;
  for (const int run : runs) {
    mask.insert(mask.end(), std::abs(run), run > 0);
  }
  return mask;
}

void MakeAbsolute(const std::vector<bool>& mask, std::span<const double> state,
                  std::span<double> action) {
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i]) action[i] += state[i];
  }
}

}  // namespace piserve::transform
