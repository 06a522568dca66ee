// SPDX-License-Identifier: Apache-2.0
#include "model/transform/normalize.h"

#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"

namespace piserve::transform {
namespace {

constexpr double kEpsilon = 1e-6;

absl::Status CheckVector(const std::vector<double>& values, int data_dim,
                         int model_dim, absl::string_view name) {
  if (values.size() < data_dim || values.size() > model_dim) {
    return absl::FailedPreconditionError(
        absl::StrCat("norm stats: ", name, ": got ", values.size(),
                     " dimensions, want ", data_dim, " to ", model_dim));
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) {
      return absl::FailedPreconditionError(absl::StrCat(
          "norm stats: ", name, "[", i, "]: got ", values[i], ", want finite"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckPair(const std::vector<double>& a, absl::string_view a_name,
                       const std::vector<double>& b, absl::string_view b_name,
                       int data_dim, int model_dim) {
  if (absl::Status status = CheckVector(a, data_dim, model_dim, a_name);
      !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckVector(b, data_dim, model_dim, b_name);
      !status.ok()) {
    return status;
  }
  if (a.size() != b.size()) {
    return absl::FailedPreconditionError(
        absl::StrCat("norm stats: ", a_name, " has ", a.size(), " dimensions, ",
                     b_name, " has ", b.size(), ", want the same"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckStats(const FieldStats& stats, NormMode mode, int data_dim,
                        int model_dim, absl::string_view field) {
  const auto name = [field](absl::string_view vector) {
    return absl::StrCat(field, ".", vector);
  };
  if (mode == NormMode::kMeanStd) {
    return CheckPair(stats.mean, name("mean"), stats.std, name("std"), data_dim,
                     model_dim);
  }
  if (!stats.q01.has_value() || !stats.q99.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("norm stats: ", field,
                     ": got no q01 and q99, want both: the policy normalises "
                     "by quantiles"));
  }
  return CheckPair(*stats.q01, name("q01"), *stats.q99, name("q99"), data_dim,
                   model_dim);
}

void NormalizeInPlace(const FieldStats& stats, NormMode mode,
                      std::span<double> x) {
  if (mode == NormMode::kMeanStd) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      x[i] = (x[i] - stats.mean[i]) / (stats.std[i] + kEpsilon);
    }
    return;
  }
  const std::vector<double>& q01 = *stats.q01;
  const std::vector<double>& q99 = *stats.q99;
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i] = (x[i] - q01[i]) / (q99[i] - q01[i] + kEpsilon) * 2.0 - 1.0;
  }
}

void Unnormalize(const FieldStats& stats, NormMode mode,
                 std::span<const float> x, std::span<double> out) {
  if (mode == NormMode::kMeanStd) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const bool known = i < stats.mean.size();
      const double mean = known ? stats.mean[i] : 0.0;
      const double std = known ? stats.std[i] : 1.0;
      out[i] = x[i] * (std + kEpsilon) + mean;
    }
    return;
  }
  const std::vector<double>& q01 = *stats.q01;
  const std::vector<double>& q99 = *stats.q99;
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (i >= q01.size()) {
      out[i] = x[i];
      continue;
    }
    const float half = (x[i] + 1.0f) / 2.0f;
    out[i] = half * (q99[i] - q01[i] + kEpsilon) + q01[i];
  }
}

}  // namespace piserve::transform
