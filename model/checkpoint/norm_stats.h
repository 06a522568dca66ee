// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/norm_stats.h"
#include "model/policy_config.h"

namespace piserve::checkpoint {

// Reads the text of a norm_stats.json. Fields that are not known are ignored.
// FAILED_PRECONDITION, with the path inside the JSON, if state or actions lack
// mean or std, a list is empty or of another length than its mean, or anything
// in it is no finite number. Source: openpi shared/normalize.py.
absl::StatusOr<NormStats> ParseNormStats(std::string_view json);

// NOT_FOUND if there is no such file.
absl::StatusOr<NormStats> ReadNormStats(const std::string& path);

// FAILED_PRECONDITION if the statistics cannot serve: NormMode::kQuantile
// without q01 and q99 or with a q99 below its q01, or more dimensions than the
// model has (openpi raises).
absl::Status CheckNormStats(const NormStats& stats, NormMode mode,
                            int action_dim);

// Mean 0, deviation 1, percentiles -1 and 1: leaves values as they are (up to
// openpi's 1e-6). For synthetic weights.
NormStats UnitNormStats(int dims);

}  // namespace piserve::checkpoint
