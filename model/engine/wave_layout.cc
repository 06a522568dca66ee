// SPDX-License-Identifier: Apache-2.0
#include "model/engine/wave_layout.h"

#include <algorithm>
#include <set>

namespace piserve::engine {
namespace {

constexpr int kShortPrompt = 64;

// The smallest that is at least n; the largest where none is.
int AtLeast(const std::vector<int>& ascending, int n) {
  const auto found = std::lower_bound(ascending.begin(), ascending.end(), n);
  return found == ascending.end() ? ascending.back() : *found;
}

int DivideUp(int a, int b) { return (a + b - 1) / b; }

}  // namespace

std::vector<int> PromptSizes(const Variant& variant) {
  if (variant.max_token_len < 2 * kShortPrompt) return {variant.max_token_len};
  return {kShortPrompt, variant.max_token_len};
}

WaveLayout LayOut(const GraphSizes& sizes, const WaveShape& shape) {
  WaveLayout layout;
  layout.rows = AtLeast(sizes.batch_sizes, shape.rows);
  const int most_waves = DivideUp(layout.rows, sizes.micro_rows);
  layout.prefix = {
      .rows = DivideUp(layout.rows, most_waves),
      .cameras = std::clamp(shape.cameras, 1, Variant::kCameras),
      .prompt_tokens = AtLeast(sizes.prompt_tokens, shape.prompt_tokens)};
  layout.micro_waves =
      DivideUp(std::min(shape.rows, layout.rows), layout.prefix.rows);
  return layout;
}

std::vector<WaveLayout> AllLayouts(const GraphSizes& sizes) {
  std::vector<WaveLayout> layouts;
  for (const int rows : sizes.batch_sizes) {
    for (int cameras = Variant::kCameras; cameras > 0; --cameras) {
      for (std::size_t i = sizes.prompt_tokens.size(); i > 0; --i) {
        layouts.push_back(
            LayOut(sizes, {.rows = rows,
                           .cameras = cameras,
                           .prompt_tokens = sizes.prompt_tokens[i - 1]}));
      }
    }
  }
  return layouts;
}

std::vector<WaveLayout> DistinctLayouts(const GraphSizes& sizes) {
  std::set<PrefixShape> prefixes;
  std::set<int> rows;
  std::vector<WaveLayout> distinct;
  for (WaveLayout layout : AllLayouts(sizes)) {
    const bool is_new = prefixes.insert(layout.prefix).second;
    if (!rows.insert(layout.rows).second && !is_new) continue;
    layout.micro_waves = 1;
    distinct.push_back(layout);
  }
  return distinct;
}

}  // namespace piserve::engine
