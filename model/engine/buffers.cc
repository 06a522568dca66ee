// SPDX-License-Identifier: Apache-2.0
#include "model/engine/buffers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "model/kernels/prefix_attention.h"
#include "model/kernels/weight_gemm/add_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"

namespace piserve::engine {
namespace {

at::Tensor Empty(at::ScalarType dtype,
                 std::initializer_list<std::int64_t> shape) {
  return at::empty(shape, at::TensorOptions(dtype).device(at::kCUDA));
}

at::Tensor Bf16(std::initializer_list<std::int64_t> shape) {
  return Empty(at::kBFloat16, shape);
}

at::Tensor Int(std::int64_t count) {
  return at::zeros({count}, at::TensorOptions(at::kInt).device(at::kCUDA));
}

// Angles are fp32 products, as openpi's are; cosine and sine are of those.
at::Tensor RopeRows(int positions, int head_dim, RopeTable table) {
  const std::vector<float> frequencies = InverseFrequencies(head_dim, table);
  std::vector<float> rows;
  rows.reserve(std::size_t{2} * positions * frequencies.size());
  for (int p = 0; p < positions; ++p) {
    for (const float frequency : frequencies) {
      const double angle = static_cast<float>(p) * frequency;
      rows.push_back(static_cast<float>(std::cos(angle)));
      rows.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return at::tensor(rows)
      .view({positions, static_cast<std::int64_t>(frequencies.size()), 2})
      .to(at::kCUDA);
}

std::int64_t QkvWidth(const GemmaSize& size) {
  return std::int64_t{size.heads + 2 * size.kv_heads} * size.head_dim;
}

}  // namespace

Buffers::Buffers(const Variant& v, const EngineWeights& weights,
                 const Capacity& capacity, RopeTable table)
    : cache_len(v.prefix_len() + v.suffix_len()) {
  const std::int64_t rows = capacity.rows, micro = capacity.micro_rows;
  const std::int64_t image = v.vision.image;
  pixels = Empty(at::kByte, {rows, Variant::kCameras, image, image, 3});
  tokens = Int(rows * v.max_token_len);
  state = Empty(at::kFloat, {rows, v.action_dim});
  x = Empty(at::kFloat, {rows, v.action_horizon, v.action_dim});
  image_len = Int(rows);
  prefix_len = Int(rows);
  next_row = Int(1);
  step = Int(1);
  call =
      Int(kernels::kExpertMaxRows * sizeof(kernels::ExpertCall) / sizeof(int));
  keys = Bf16({v.vlm.depth, rows, cache_len, v.vlm.kv_heads, v.vlm.head_dim});
  values = Bf16({v.vlm.depth, rows, cache_len, v.vlm.kv_heads, v.vlm.head_dim});

  row_base = Int(1);
  micro_image_len = Int(micro);
  micro_prefix_len = Int(micro);
  key_start = Int(micro + 1);

  const VisionWeights& vision = weights.vision;
  const std::int64_t n = micro * Variant::kCameras * v.vision.tokens();
  patches = Bf16({n, vision.patch_pitch});
  patch_grid = Empty(at::kFloat, {n, v.vision.width});
  vision_x = Bf16({n, v.vision.width});
  vision_h = Bf16({n, v.vision.width});
  vision_moments = Empty(at::kFloat, {n, 2});
  vision_qkv = Bf16({n, std::int64_t{3} * v.vision.heads * vision.head});
  vision_o = Bf16({n, std::int64_t{v.vision.heads} * vision.head});
  vision_mlp = Bf16({n, vision.mlp});
  image_tokens = Bf16({n, v.vlm.width});

  const std::int64_t p = micro * v.prefix_len();
  prefix_x = Bf16({p, v.vlm.width});
  prefix_h = Bf16({p, v.vlm.width});
  prefix_qkv = Bf16({p, QkvWidth(v.vlm)});
  prefix_o = Bf16({p, std::int64_t{v.vlm.heads} * v.vlm.head_dim});
  if (weights.vlm.gate_up == GateUp::kGateFirst) {
    prefix_gate_up = Bf16({p, std::int64_t{2} * v.vlm.mlp});
  }
  prefix_act = Bf16({p, v.vlm.mlp});
  prefix_parts =
      Empty(at::kFloat, {kernels::kSplitGemmParts,
                         std::min(p, kernels::kSplitGemmTokens), v.vlm.width});
  prefix_squares =
      Empty(at::kFloat, {v.vlm.width / kernels::kAddGemmSquares, p});
  prefix_begun = Int(kernels::kPrefixAttentionWords);

  const std::int64_t q = rows * v.suffix_len();
  mixed = Bf16({q, v.expert.width});
  mixed.zero_();  // the state token's rows enter a product that nobody reads
  suffix_x = Bf16({q, v.expert.width});
  suffix_h = Bf16({q, v.expert.width});
  suffix_y = Bf16({q, v.expert.width});
  suffix_qkv = Bf16({q, QkvWidth(v.expert)});
  suffix_o = Bf16({q, std::int64_t{v.expert.heads} * v.expert.head_dim});
  if (weights.expert.gate_up == GateUp::kGateFirst) {
    suffix_gate_up = Bf16({q, std::int64_t{2} * v.expert.mlp});
  }
  suffix_act = Bf16({q, v.expert.mlp});
  velocity = Empty(at::kFloat, {rows * v.action_horizon, v.action_dim});
  rope = RopeRows(cache_len + 1, v.vlm.head_dim, table);
}

void Buffers::Poison() {
  const c10::InferenceMode inference;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (at::Tensor* t : {&state,          &x,
                        &keys,           &values,
                        &patches,        &patch_grid,
                        &vision_x,       &vision_h,
                        &vision_moments, &vision_qkv,
                        &vision_o,       &vision_mlp,
                        &image_tokens,   &prefix_x,
                        &prefix_h,       &prefix_qkv,
                        &prefix_o,       &prefix_gate_up,
                        &prefix_act,     &prefix_parts,
                        &prefix_squares, &mixed,
                        &suffix_x,       &suffix_h,
                        &suffix_y,       &suffix_qkv,
                        &suffix_o,       &suffix_gate_up,
                        &suffix_act,     &velocity}) {
    if (t->defined()) t->fill_(nan);
  }
  pixels.fill_(255);
  tokens.fill_(7);
  // A graph that forgot to set these would read far outside: caught by bounds
  // that the kernels check, or by the sanitizer.
  for (at::Tensor* t :
       {&image_len, &prefix_len, &micro_image_len, &micro_prefix_len}) {
    t->fill_(1);
  }
}

kernels::WaveInput Buffers::wave() const {
  return {.pixels = Data<std::uint8_t>(pixels),
          .tokens = Data<std::int32_t>(tokens),
          .state = Data<float>(state),
          .x = Data<float>(x),
          .image_len = Data<int>(image_len),
          .prefix_len = Data<int>(prefix_len)};
}

kernels::MicroWave Buffers::micro_wave() const {
  return {.row_base = Data<int>(row_base),
          .image_len = Data<int>(micro_image_len),
          .prefix_len = Data<int>(micro_prefix_len),
          .key_start = Data<int>(key_start)};
}

}  // namespace piserve::engine
