// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/norm_stats.h"

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/json.h"
#include "model/checkpoint/mapped_file.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;

constexpr std::string_view kTop = "norm_stats";

absl::Status Refuse(std::string_view path, absl::string_view message) {
  return absl::FailedPreconditionError(
      absl::StrCat(std::string(path), ": ", message));
}

absl::StatusOr<std::vector<double>> ReadNumbers(const json& list,
                                                std::string_view path) {
  if (!list.is_array() || list.empty()) {
    return Refuse(path, absl::StrCat("got ", DescribeJson(list),
                                     ", want a list of numbers"));
  }
  std::vector<double> numbers;
  for (const json& element : list) {
    // The parser has refused what is beyond double; JSON has no NaN.
    if (!element.is_number()) {
      return Refuse(absl::StrCat(std::string(path), "[", numbers.size(), "]"),
                    absl::StrCat("got ", DescribeJson(element),
                                 ", want a finite number"));
    }
    numbers.push_back(element.get<double>());
  }
  return numbers;
}

absl::StatusOr<std::vector<double>> ReadRequired(const json& field,
                                                 std::string_view where,
                                                 std::string_view name) {
  absl::StatusOr<const json*> list = Field(field, where, name);
  if (!list.ok()) return list.status();
  return ReadNumbers(**list, FieldPath(where, name));
}

// Absent and null mean the same.
absl::StatusOr<std::optional<std::vector<double>>> ReadOptional(
    const json& field, std::string_view where, std::string_view name) {
  const auto it = field.find(std::string(name));
  if (it == field.end() || it->is_null()) return std::nullopt;
  auto numbers = ReadNumbers(*it, FieldPath(where, name));
  if (!numbers.ok()) return numbers.status();
  return std::make_optional(*std::move(numbers));
}

absl::Status CheckLength(const std::vector<double>& values, std::size_t want,
                         std::string_view path) {
  if (values.size() == want) return absl::OkStatus();
  return Refuse(path, absl::StrCat("got ", values.size(), " numbers, want ",
                                   want, " as in mean"));
}

absl::Status CheckField(const FieldStats& stats, std::string_view where) {
  const std::size_t dims = stats.mean.size();
  absl::Status status = CheckLength(stats.std, dims, FieldPath(where, "std"));
  if (status.ok() && stats.q01.has_value()) {
    status = CheckLength(*stats.q01, dims, FieldPath(where, "q01"));
  }
  if (status.ok() && stats.q99.has_value()) {
    status = CheckLength(*stats.q99, dims, FieldPath(where, "q99"));
  }
  if (!status.ok()) return status;
  for (const double std : stats.std) {
    if (std >= 0) continue;
    return Refuse(FieldPath(where, "std"),
                  absl::StrCat("got ", std, ", want no negative number"));
  }
  return absl::OkStatus();
}

absl::StatusOr<FieldStats> ReadField(const json& stats, std::string_view name) {
  absl::StatusOr<const json*> field = Field(stats, kTop, name);
  if (!field.ok()) return field.status();
  const std::string where = FieldPath(kTop, name);
  auto mean = ReadRequired(**field, where, "mean");
  if (!mean.ok()) return mean.status();
  auto std = ReadRequired(**field, where, "std");
  if (!std.ok()) return std.status();
  auto q01 = ReadOptional(**field, where, "q01");
  if (!q01.ok()) return q01.status();
  auto q99 = ReadOptional(**field, where, "q99");
  if (!q99.ok()) return q99.status();
  FieldStats result{.mean = *std::move(mean),
                    .std = *std::move(std),
                    .q01 = *std::move(q01),
                    .q99 = *std::move(q99)};
  if (absl::Status s = CheckField(result, where); !s.ok()) return s;
  return result;
}

// Else actions would come out mirrored.
absl::Status CheckOrder(const FieldStats& stats, std::string_view where) {
  const std::vector<double>& q01 = *stats.q01;
  const std::vector<double>& q99 = *stats.q99;
  for (std::size_t i = 0; i < q01.size(); ++i) {
    if (q99[i] >= q01[i]) continue;
    return Refuse(
        absl::StrCat(FieldPath(where, "q99"), "[", i, "]"),
        absl::StrCat("got ", q99[i], ", want no less than q01's ", q01[i]));
  }
  return absl::OkStatus();
}

absl::Status CheckUse(const FieldStats& stats, std::string_view name,
                      NormMode mode, int action_dim) {
  const std::string where = FieldPath(kTop, name);
  if (stats.mean.size() > static_cast<std::size_t>(action_dim)) {
    return Refuse(where, absl::StrCat("got ", stats.mean.size(),
                                      " dimensions, want at most the model's ",
                                      action_dim));
  }
  if (mode != NormMode::kQuantile) return absl::OkStatus();
  if (!stats.q01.has_value() || !stats.q99.has_value()) {
    return Refuse(where,
                  "q01 or q99 missing, want both for a policy that normalises "
                  "by quantiles");
  }
  return CheckOrder(stats, where);
}

}  // namespace

absl::StatusOr<NormStats> ParseNormStats(std::string_view text) {
  absl::StatusOr<json> file = ParseJson(text);
  if (!file.ok()) return file.status();
  absl::StatusOr<const json*> stats = Field(*file, "", kTop);
  if (!stats.ok()) return stats.status();
  absl::StatusOr<FieldStats> state = ReadField(**stats, "state");
  if (!state.ok()) return state.status();
  absl::StatusOr<FieldStats> actions = ReadField(**stats, "actions");
  if (!actions.ok()) return actions.status();
  return NormStats{.state = *std::move(state), .actions = *std::move(actions)};
}

absl::StatusOr<NormStats> ReadNormStats(const std::string& path) {
  absl::StatusOr<std::string> text = ReadTextFile(path);
  if (!text.ok()) return text.status();
  return ParseNormStats(*text);
}

absl::Status CheckNormStats(const NormStats& stats, NormMode mode,
                            int action_dim) {
  absl::Status status = CheckUse(stats.state, "state", mode, action_dim);
  if (!status.ok()) return status;
  return CheckUse(stats.actions, "actions", mode, action_dim);
}

NormStats UnitNormStats(int dims) {
  const FieldStats unit{.mean = std::vector<double>(dims, 0.0),
                        .std = std::vector<double>(dims, 1.0),
                        .q01 = std::vector<double>(dims, -1.0),
                        .q99 = std::vector<double>(dims, 1.0)};
  return {.state = unit, .actions = unit};
}

}  // namespace piserve::checkpoint
