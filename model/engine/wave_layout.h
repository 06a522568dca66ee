// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <vector>

#include "model/policy.h"
#include "model/variant.h"

namespace piserve::engine {

// Rows whose prefix is computed at once, unless told otherwise: the GPU is full
// before that, and more only take memory.
inline constexpr int kMicroRows = 8;

// A micro-wave's shape. Every row is computed as if it had all of it; what a
// row lacks is masked.
struct PrefixShape {
  int rows = 1;
  int cameras = Variant::kCameras;
  int prompt_tokens = 0;

  auto operator<=>(const PrefixShape&) const = default;
};

// How a wave is computed: `micro_waves` prefixes of one shape one after
// another, then all rows denoised together. All micro-waves have the same
// shape, so that a row's bits do not depend on its place; there are only as
// many as hold the wave, and rows behind them are denoised for nobody.
struct WaveLayout {
  PrefixShape prefix;
  int micro_waves = 1;
  int rows = 1;  // denoised: the smallest batch size that holds the wave

  // Rows whose prefix is computed; the last ones may be nobody's.
  int prefix_rows() const { return micro_waves * prefix.rows; }
};

// The sizes that a policy's graphs are made for.
struct GraphSizes {
  std::vector<int> batch_sizes;    // ascending
  std::vector<int> prompt_tokens;  // ascending; the last is the longest prompt
  int micro_rows = kMicroRows;     // of a prefix graph at most
};

// Prompt lengths worth graphs of their own: a short one where the longest is
// much longer.
std::vector<int> PromptSizes(const Variant& variant);

// What of `shape` exceeds the sizes is cut to the largest.
WaveLayout LayOut(const GraphSizes& sizes, const WaveShape& shape);

// Every layout that some wave may have: fewest rows first, and of as many rows
// the one with the longest prefix first.
std::vector<WaveLayout> AllLayouts(const GraphSizes& sizes);

// Of these every prefix graph once, and every step graph with one of them: what
// a wave repeats is not tried again. Each number of rows comes first with the
// longest prefix, whose keys its steps then have.
std::vector<WaveLayout> DistinctLayouts(const GraphSizes& sizes);

}  // namespace piserve::engine
