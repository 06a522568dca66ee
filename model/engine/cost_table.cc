// SPDX-License-Identifier: Apache-2.0
#include "model/engine/cost_table.h"

namespace piserve::engine {

absl::Duration CostTable::Predict(const WaveLayout& layout, int count) const {
  const auto p = prefix.find(layout.prefix);
  const auto s = steps.find(layout.rows);
  if (p == prefix.end() || s == steps.end()) return absl::InfiniteDuration();
  return (p->second.vision + p->second.prefill) * layout.micro_waves +
         s->second.Total(count) + transfer * layout.rows;
}

}  // namespace piserve::engine
