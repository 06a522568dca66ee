// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/checkpoint/norm_stats.h"

namespace {

// Statistics that were taken are finite and of one length.
void CheckField(const piserve::FieldStats& stats) {
  for (const auto* values :
       {&stats.mean, &stats.std, stats.q01.has_value() ? &*stats.q01 : nullptr,
        stats.q99.has_value() ? &*stats.q99 : nullptr}) {
    if (values == nullptr) continue;
    if (values->size() != stats.mean.size()) std::abort();
    for (const double value : *values) {
      if (!std::isfinite(value)) std::abort();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const auto stats = piserve::checkpoint::ParseNormStats(
      {reinterpret_cast<const char*>(data), size});
  if (!stats.ok()) return 0;
  CheckField(stats->state);
  CheckField(stats->actions);
  for (const auto mode :
       {piserve::NormMode::kMeanStd, piserve::NormMode::kQuantile}) {
    piserve::checkpoint::CheckNormStats(*stats, mode, 2).IgnoreError();
  }
  return 0;
}
