// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/engine/cost_table.h"
#include "model/engine/gemm_shape.h"

namespace piserve::engine {

// What a first start finds out and later ones need not: the algorithm of every
// GEMM, how few rows are denoised best, what each graph costs, and what the
// graphs answered.
struct Plan {
  // cuBLASLt's opaque description.
  using Algorithm = std::array<std::uint64_t, 8>;

  // Everything that the rest depends on: weights, device, driver, libraries,
  // engine, sizes. One line.
  std::string key;
  std::map<GemmShape, Algorithm> gemms;
  std::set<int> persistent;  // rows that one kernel denoises
  CostTable costs;
  // FNV-1a 64 over the actions of the warm-up wave, by rows.
  std::map<int, std::uint64_t> hashes;
};

std::string ToText(const Plan& plan);

// INVALID_ARGUMENT that names the line.
absl::StatusOr<Plan> ParsePlan(std::string_view text);

// NOT_FOUND if there is no such file.
absl::StatusOr<Plan> ReadPlan(const std::string& path);

// Replaces the file as a whole: a reader sees the old one or the new one, and
// of processes that write it at once the last one's. One thread of a process at
// a time.
absl::Status WritePlan(const std::string& path, const Plan& plan);

}  // namespace piserve::engine
