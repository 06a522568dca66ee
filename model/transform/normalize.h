// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "model/norm_stats.h"
#include "model/policy_config.h"

namespace piserve::transform {

// To and from the model's range, in float64, nothing clipped:
//
//   mean/std   (x - mean) / (std + 1e-6)
//   quantile   (x - q01) / (q99 - q01 + 1e-6) * 2 - 1
//
// Statistics of more dimensions than `x` are cut to it when normalising. When
// unnormalising, `x` may have more dimensions than the statistics: the rest are
// scaled by 1 + 1e-6 (mean/std: std 1, mean 0) or left alone (quantile).
// Source: openpi transforms.py Normalize, Unnormalize; docs/pi0.md 4.4.
//
// CheckStats says whether `stats` can normalise vectors of `data_dim` and
// unnormalise vectors of `model_dim`. FAILED_PRECONDITION if a vector is
// missing, their lengths differ, or they are shorter than `data_dim` or longer
// than `model_dim`, or a number is not finite; `field` names them.
absl::Status CheckStats(const FieldStats& stats, NormMode mode, int data_dim,
                        int model_dim, absl::string_view field);

// Both need stats that passed CheckStats.
void NormalizeInPlace(const FieldStats& stats, NormMode mode,
                      std::span<double> x);

// Of the model's float32 actions. By quantiles, (x + 1) / 2 is float32
// arithmetic, as numpy's is on a float32 array; the rest is float64.
//   x, out  of the same length
void Unnormalize(const FieldStats& stats, NormMode mode,
                 std::span<const float> x, std::span<double> out);

}  // namespace piserve::transform
