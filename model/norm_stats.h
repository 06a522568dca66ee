// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <vector>

namespace piserve {

// Statistics of one field over the training data, one number a dimension, in
// robot units. float64, as openpi keeps them. Source: openpi
// shared/normalize.py NormStats.
struct FieldStats {
  std::vector<double> mean;
  std::vector<double> std;
  // 1st and 99th percentile; needed by NormMode::kQuantile only.
  std::optional<std::vector<double>> q01;
  std::optional<std::vector<double>> q99;
};

// assets/<asset_id>/norm_stats.json of a checkpoint.
struct NormStats {
  FieldStats state;
  FieldStats actions;
};

}  // namespace piserve
