// SPDX-License-Identifier: Apache-2.0
#include "model/reference/gemma.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/mul.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/reference/ops.h"

namespace piserve::reference {
namespace {

// x + y, or x + y * gate with both results rounded.
// Source: openpi transformers_replace modeling_gemma.py, _gated_residual.
at::Tensor Residual(const at::Tensor& x, const at::Tensor& y,
                    const at::Tensor& gate) {
  return at::add(x, gate.defined() ? at::mul(y, gate) : y);
}

std::string ModelName(Gemma::Role role) {
  return role == Gemma::Role::kVlm
             ? "paligemma_with_expert.paligemma.model.language_model."
             : "paligemma_with_expert.gemma_expert.model.";
}

}  // namespace

Gemma::Gemma(Parameters& parameters, Role role) {
  const Variant& variant = parameters.weights().variant();
  const bool is_expert = role == Role::kExpert;
  size_ = is_expert ? variant.expert : variant.vlm;
  adaptive_ = is_expert && variant.pi05;
  const std::string model = ModelName(role);
  for (int i = 0; i < size_.depth; ++i) {
    const std::string prefix = absl::StrCat(model, "layers.", i, ".");
    const auto get = [&](const char* name) {
      return parameters.Get(absl::StrCat(prefix, name, ".weight"));
    };
    Layer& layer = layers_.emplace_back();
    layer.input_norm =
        GetNorm(parameters, absl::StrCat(prefix, "input_layernorm"));
    layer.k = get("self_attn.k_proj");
    layer.v = get("self_attn.v_proj");
    if (!is_expert && i + 1 == size_.depth) break;  // keys and values only
    layer.q = get("self_attn.q_proj");
    layer.o = get("self_attn.o_proj");
    layer.post_norm =
        GetNorm(parameters, absl::StrCat(prefix, "post_attention_layernorm"));
    layer.gate = get("mlp.gate_proj");
    layer.up = get("mlp.up_proj");
    layer.down = get("mlp.down_proj");
  }
  if (is_expert) final_norm_ = GetNorm(parameters, absl::StrCat(model, "norm"));
}

Gemma::Norm Gemma::GetNorm(Parameters& parameters,
                           const std::string& name) const {
  if (!adaptive_) {
    return {.weight = parameters.Get(absl::StrCat(name, ".weight"))};
  }
  return {.dense_weight = parameters.Get(absl::StrCat(name, ".dense.weight")),
          .dense_bias = parameters.Get(absl::StrCat(name, ".dense.bias"))};
}

// docs/pi0.md 2.6 op 1; with adaptive norms 2.11.
Gemma::Normed Gemma::Apply(const Norm& norm, const at::Tensor& x,
                           const at::Tensor& cond, const Trace& trace,
                           const std::string& stage) const {
  if (!adaptive_) return {RmsNorm(x, norm.weight), {}};
  const at::Tensor modulation =
      LinearOf(cond, norm.dense_weight, norm.dense_bias);
  Record(trace, modulation, "expert_modulation.", stage);
  const auto chunk = [&](int index) {
    return modulation.narrow(-1, index * size_.width, size_.width).unsqueeze(1);
  };
  const at::Tensor scale = chunk(0), shift = chunk(1), gate = chunk(2);
  const at::Tensor h =
      at::add(at::mul(RmsNormalize(x), at::add(scale, 1.0)), shift);
  return {h.to(x.scalar_type()), gate.to(x.scalar_type())};
}

at::Tensor Gemma::Keys(const Layer& layer, const at::Tensor& h,
                       const Rotation& rotation) const {
  const at::Tensor k = SplitHeads(LinearOf(h, layer.k), size_.kv_heads);
  return ApplyRope(k, rotation);
}

at::Tensor Gemma::Values(const Layer& layer, const at::Tensor& h) const {
  return SplitHeads(LinearOf(h, layer.v), size_.kv_heads);
}

// docs/pi0.md 2.6 ops 2 to 6, up to the output projection.
at::Tensor Gemma::Attend(const Layer& layer, const at::Tensor& h,
                         const at::Tensor& keys, const at::Tensor& values,
                         const Sequence& sequence) const {
  const at::Tensor q = ApplyRope(SplitHeads(LinearOf(h, layer.q), size_.heads),
                                 sequence.rotation);
  const at::Tensor o = EagerAttention(q, keys, values, sequence.mask);
  return LinearOf(MergeHeads(o), layer.o);
}

// docs/pi0.md 2.6 op 8: gate, its GELU, up and their product are each rounded.
at::Tensor Gemma::Mlp(const Layer& layer, const at::Tensor& h) const {
  const at::Tensor gate = GeluTanh(LinearOf(h, layer.gate));
  const at::Tensor up = LinearOf(h, layer.up);
  return LinearOf(at::mul(gate, up), layer.down);
}

PrefixCache Gemma::Prefill(at::Tensor x, const Sequence& sequence,
                           const Trace& trace) const {
  PrefixCache cache;
  for (int i = 0; i < size_.depth; ++i) {
    const Layer& layer = layers_[i];
    const at::Tensor h = RmsNorm(x, layer.input_norm.weight);
    cache.keys.push_back(Keys(layer, h, sequence.rotation));
    cache.values.push_back(Values(layer, h));
    Record(trace, cache.keys.back(), "cache_k.", i);
    Record(trace, cache.values.back(), "cache_v.", i);
    if (i + 1 == size_.depth) break;
    x = at::add(
        x, Attend(layer, h, cache.keys.back(), cache.values.back(), sequence));
    x = at::add(x, Mlp(layer, RmsNorm(x, layer.post_norm.weight)));
    Record(trace, x, "prefix_hidden.", i);
  }
  return cache;
}

at::Tensor Gemma::Denoise(at::Tensor x, const at::Tensor& cond,
                          const PrefixCache& prefix, const Sequence& sequence,
                          const Trace& trace) const {
  for (int i = 0; i < size_.depth; ++i) {
    const Layer& layer = layers_[i];
    const Normed input =
        Apply(layer.input_norm, x, cond, trace, absl::StrCat(i, ".input"));
    const at::Tensor keys = at::cat(
        {prefix.keys[i], Keys(layer, input.hidden, sequence.rotation)}, 2);
    const at::Tensor values =
        at::cat({prefix.values[i], Values(layer, input.hidden)}, 2);
    x = Residual(x, Attend(layer, input.hidden, keys, values, sequence),
                 input.gate);
    const Normed post =
        Apply(layer.post_norm, x, cond, trace, absl::StrCat(i, ".post"));
    x = Residual(x, Mlp(layer, post.hidden), post.gate);
    Record(trace, x, "expert_hidden.", i);
  }
  return Apply(final_norm_, x, cond, trace, "final").hidden;
}

}  // namespace piserve::reference
