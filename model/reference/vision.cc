// SPDX-License-Identifier: Apache-2.0
#include "model/reference/vision.h"

#include <ATen/ops/_convolution.h>
#include <ATen/ops/add.h>
#include <ATen/ops/div.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include "absl/strings/str_cat.h"
#include "model/reference/ops.h"

namespace piserve::reference {
namespace {

// uint8 to [-1, 1] in three fp32 operations (docs/pi0.md 2.2).
// Source: openpi models/model.py, Observation.from_dict.
at::Tensor Normalize(const at::Tensor& images) {
  // Divided by a tensor: by a scalar CUDA would multiply by the reciprocal,
  // which gives other bits than the CPU for 111 of the 256 values.
  const at::Tensor range =
      at::full({}, 255.0, images.options().dtype(at::kFloat));
  const at::Tensor unit = at::div(images.to(at::kFloat), range);
  return at::sub(at::mul(unit, 2.0), 1.0);
}

}  // namespace

at::Tensor Linear::operator()(const at::Tensor& x) const {
  return LinearOf(x, weight, bias);
}

Linear GetLinear(Parameters& parameters, const std::string& name) {
  return {parameters.Get(absl::StrCat(name, ".weight")),
          parameters.Get(absl::StrCat(name, ".bias"))};
}

Vision::Vision(Parameters& parameters, const VisionSize& size)
    : size_(size), dtype_(parameters.options().dtype()) {
  const std::string model =
      "paligemma_with_expert.paligemma.model.vision_tower.vision_model.";
  patch_ =
      GetLinear(parameters, absl::StrCat(model, "embeddings.patch_embedding"));
  position_ = parameters.Get(
      absl::StrCat(model, "embeddings.position_embedding.weight"));
  for (int i = 0; i < size.depth; ++i) {
    const auto get = [&](const char* name) {
      return GetLinear(parameters,
                       absl::StrCat(model, "encoder.layers.", i, ".", name));
    };
    layers_.push_back({.norm1 = get("layer_norm1"),
                       .q = get("self_attn.q_proj"),
                       .k = get("self_attn.k_proj"),
                       .v = get("self_attn.v_proj"),
                       .out = get("self_attn.out_proj"),
                       .norm2 = get("layer_norm2"),
                       .fc1 = get("mlp.fc1"),
                       .fc2 = get("mlp.fc2")});
  }
  post_norm_ = GetLinear(parameters, absl::StrCat(model, "post_layernorm"));
  projector_ = GetLinear(
      parameters,
      "paligemma_with_expert.paligemma.model.multi_modal_projector.linear");
}

// docs/pi0.md 2.3 steps 1 and 2. ATen's convolution, as openpi has it: BF16
// mode rounds its result, and another order of its sums would flip a few
// roundings that the layers then spread over all tokens.
at::Tensor Vision::Embed(const at::Tensor& images) const {
  const at::Tensor grid = at::_convolution(
      Normalize(images).permute({0, 3, 1, 2}), patch_.weight, patch_.bias,
      /*stride=*/{size_.patch, size_.patch}, /*padding=*/{0, 0},
      /*dilation=*/{1, 1}, /*transposed=*/false, /*output_padding=*/{0, 0},
      /*groups=*/1, /*benchmark=*/false, /*deterministic=*/true,
      /*cudnn_enabled=*/true, /*allow_tf32=*/false);
  return at::add(grid.flatten(2).transpose(1, 2), position_);
}

at::Tensor Vision::Attend(const Layer& layer, const at::Tensor& x) const {
  const at::Tensor q = SplitHeads(layer.q(x), size_.heads);
  const at::Tensor k = SplitHeads(layer.k(x), size_.heads);
  const at::Tensor v = SplitHeads(layer.v(x), size_.heads);
  return layer.out(MergeHeads(FlashAttention(q, k, v)));
}

at::Tensor Vision::Encode(const at::Tensor& images, const Trace& trace) const {
  const at::Tensor embedded = Embed(images);
  Record(trace, embedded, "vision_embed");
  at::Tensor x = embedded.to(dtype_);         // step 3
  for (int i = 0; i < layers_.size(); ++i) {  // step 4
    const Layer& layer = layers_[i];
    const at::Tensor y = LayerNorm(x, layer.norm1.weight, layer.norm1.bias);
    x = at::add(x, Attend(layer, y));
    const at::Tensor z = LayerNorm(x, layer.norm2.weight, layer.norm2.bias);
    x = at::add(x, layer.fc2(GeluTanh(layer.fc1(z))));
    Record(trace, x, "vision_hidden.", i);
  }
  x = LayerNorm(x, post_norm_.weight, post_norm_.bias);  // step 5
  Record(trace, x, "vision_out");
  return projector_(x);  // step 6
}

}  // namespace piserve::reference
