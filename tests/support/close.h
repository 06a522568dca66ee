// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace piserve::test {

// Equal to 1e-12 relative, as the goldens' MANIFEST asks of float64 results
// (numpy's arcsin may differ from libm's by an ulp); absolute below 1.
inline testing::AssertionResult Close(const std::vector<double>& got,
                                      const std::vector<double>& want) {
  if (got.size() != want.size()) {
    return testing::AssertionFailure()
           << "got " << got.size() << " values, want " << want.size();
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double bound = 1e-12 * std::max(1.0, std::abs(want[i]));
    if (!(std::abs(got[i] - want[i]) <= bound)) {
      return testing::AssertionFailure()
             << "[" << i << "]: got " << got[i] << ", want " << want[i]
             << ", difference " << got[i] - want[i];
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace piserve::test
