// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/tensor_spec.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace piserve::checkpoint {
namespace {

using Shape = std::vector<std::int64_t>;

// Collects specs under a name prefix.
class SpecList {
 public:
  void Add(std::string name, Shape shape) {
    specs_.push_back({std::move(name), std::move(shape)});
  }

  // name.weight [out, ...] and name.bias [out].
  void AddLinear(const std::string& name, std::int64_t out, std::int64_t in) {
    Add(name + ".weight", {out, in});
    Add(name + ".bias", {out});
  }

  void AddNorm(const std::string& name, std::int64_t width) {
    Add(name + ".weight", {width});
    Add(name + ".bias", {width});
  }

  std::vector<TensorSpec> Sorted() && {
    std::sort(specs_.begin(), specs_.end(),
              [](const auto& a, const auto& b) { return a.name < b.name; });
    return std::move(specs_);
  }

 private:
  std::vector<TensorSpec> specs_;
};

void AddVision(const VisionSize& size, SpecList& list) {
  const std::string prefix(kVisionPrefix);
  list.Add(prefix + "embeddings.patch_embedding.weight",
           {size.width, 3, size.patch, size.patch});
  list.Add(prefix + "embeddings.patch_embedding.bias", {size.width});
  list.Add(prefix + "embeddings.position_embedding.weight",
           {size.tokens(), size.width});
  for (int i = 0; i < size.depth; ++i) {
    const std::string layer = absl::StrCat(prefix, "encoder.layers.", i, ".");
    list.AddNorm(layer + "layer_norm1", size.width);
    list.AddNorm(layer + "layer_norm2", size.width);
    for (const char* name : {"q_proj", "k_proj", "v_proj", "out_proj"}) {
      list.AddLinear(layer + "self_attn." + name, size.width, size.width);
    }
    list.AddLinear(layer + "mlp.fc1", size.mlp, size.width);
    list.AddLinear(layer + "mlp.fc2", size.width, size.mlp);
  }
  list.AddNorm(prefix + "post_layernorm", size.width);
}

// Attention and MLP of one Gemma layer; norms differ between the two Gemmas.
void AddGemmaLayer(const std::string& layer, const GemmaSize& size,
                   SpecList& list) {
  const std::int64_t query = std::int64_t{size.heads} * size.head_dim;
  const std::int64_t key = std::int64_t{size.kv_heads} * size.head_dim;
  list.Add(layer + "self_attn.q_proj.weight", {query, size.width});
  list.Add(layer + "self_attn.k_proj.weight", {key, size.width});
  list.Add(layer + "self_attn.v_proj.weight", {key, size.width});
  list.Add(layer + "self_attn.o_proj.weight", {size.width, query});
  list.Add(layer + "mlp.gate_proj.weight", {size.mlp, size.width});
  list.Add(layer + "mlp.up_proj.weight", {size.mlp, size.width});
  list.Add(layer + "mlp.down_proj.weight", {size.width, size.mlp});
}

void AddVlm(const GemmaSize& size, SpecList& list) {
  const std::string prefix(kVlmPrefix);
  for (int i = 0; i < size.depth; ++i) {
    const std::string layer = absl::StrCat(prefix, "layers.", i, ".");
    AddGemmaLayer(layer, size, list);
    list.Add(layer + "input_layernorm.weight", {size.width});
    list.Add(layer + "post_attention_layernorm.weight", {size.width});
  }
  list.Add(prefix + "norm.weight", {size.width});
}

// Pi0.5 computes scale, shift and gate from the time instead of a weight.
void AddExpertNorm(const std::string& name, const Variant& variant,
                   SpecList& list) {
  const std::int64_t width = variant.expert.width;
  if (variant.pi05) {
    list.AddLinear(name + ".dense", 3 * width, width);
  } else {
    list.Add(name + ".weight", {width});
  }
}

void AddExpert(const Variant& variant, SpecList& list) {
  const std::string prefix(kExpertPrefix);
  for (int i = 0; i < variant.expert.depth; ++i) {
    const std::string layer = absl::StrCat(prefix, "layers.", i, ".");
    AddGemmaLayer(layer, variant.expert, list);
    AddExpertNorm(layer + "input_layernorm", variant, list);
    AddExpertNorm(layer + "post_attention_layernorm", variant, list);
  }
  AddExpertNorm(prefix + "norm", variant, list);
}

void AddProjections(const Variant& variant, SpecList& list) {
  const std::int64_t width = variant.expert.width;
  list.AddLinear("action_in_proj", width, variant.action_dim);
  list.AddLinear("action_out_proj", variant.action_dim, width);
  if (variant.pi05) {
    list.AddLinear("time_mlp_in", width, width);
    list.AddLinear("time_mlp_out", width, width);
  } else {
    list.AddLinear("state_proj", width, variant.action_dim);
    list.AddLinear("action_time_mlp_in", width, 2 * width);
    list.AddLinear("action_time_mlp_out", width, width);
  }
}

}  // namespace

std::vector<TensorSpec> TensorSpecs(const Variant& variant) {
  SpecList list;
  AddVision(variant.vision, list);
  const std::string projector(kProjectorPrefix);
  list.Add(projector + "weight", {variant.vlm.width, variant.vision.width});
  list.Add(projector + "bias", {variant.vlm.width});
  list.Add(std::string(kTokenEmbedding), {variant.vocab, variant.vlm.width});
  AddVlm(variant.vlm, list);
  AddExpert(variant, list);
  AddProjections(variant, list);
  return std::move(list).Sorted();
}

TensorSpec DeadExpertHead(const Variant& variant) {
  return {"paligemma_with_expert.gemma_expert.lm_head.weight",
          {variant.vocab, variant.expert.width}};
}

}  // namespace piserve::checkpoint
