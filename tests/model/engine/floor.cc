// SPDX-License-Identifier: Apache-2.0
#include "tests/model/engine/floor.h"

#include <algorithm>

namespace piserve::engine {
namespace {

constexpr double kBytesPerMs = 4.59e9;  // measured on one H200

// Weights of one layer that every token meets.
double LayerWeights(const GemmaSize& g) {
  const double heads = g.heads * g.head_dim, keys = g.kv_heads * g.head_dim;
  return g.width * (2 * heads + 2 * keys) + 3.0 * g.width * g.mlp;
}

double ImageFlops(const Variant& v) {
  const VisionSize& s = v.vision;
  const double tokens = s.tokens();
  const double layer =
      2 * tokens * (4.0 * s.width * s.width + 2.0 * s.width * s.mlp) +
      4 * tokens * tokens * s.width;
  return s.depth * layer + 2 * tokens * s.width * v.vlm.width;
}

// The last layer computes keys and values only.
double PrefixFlops(const GemmaSize& g, double tokens) {
  const double attention = 4 * tokens * tokens * g.heads * g.head_dim;
  return (g.depth - 1) * (2 * tokens * LayerWeights(g) + attention) +
         4 * tokens * g.width * g.kv_heads * g.head_dim;
}

double StepMs(const Variant& v, double rows, double prefix,
              double flops_per_ms) {
  const GemmaSize& g = v.expert;
  const double keys = g.depth * 2.0 * prefix * g.kv_heads * g.head_dim;
  const double bytes = 2 * (g.depth * LayerWeights(g) + rows * keys);
  const double attention =
      g.depth * 4.0 * (prefix + v.action_horizon) * g.heads * g.head_dim;
  const double flops =
      rows * v.action_horizon * (2 * g.depth * LayerWeights(g) + attention);
  return std::max(bytes / kBytesPerMs, flops / flops_per_ms);
}

}  // namespace

double FloorMs(const Variant& v, const WaveShape& shape, double tflops) {
  const double flops_per_ms = tflops * 1e9;
  const double prefix = shape.cameras * v.vision.tokens() + shape.prompt_tokens;
  const double flops =
      shape.cameras * ImageFlops(v) + PrefixFlops(v.vlm, prefix);
  return shape.rows * flops / flops_per_ms +
         shape.steps * StepMs(v, shape.rows, prefix, flops_per_ms);
}

}  // namespace piserve::engine
