// SPDX-License-Identifier: Apache-2.0
#include "model/engine/weights.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include <exception>
#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/engine/step_tables.h"
#include "model/engine/tensor_loader.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"

namespace piserve::engine {
namespace {

// Elements of bf16.
constexpr int kAccess = 8;  // the widest access
constexpr int kLine = 64;   // of L2

int RoundUp(int n, int to) { return (n + to - 1) / to * to; }

at::Tensor Transposed(const at::Tensor& matrix) {
  return matrix.t().contiguous();
}

// Zeros after the last element of dimension `dim` up to `size`.
at::Tensor PadTo(const at::Tensor& x, int dim, std::int64_t size) {
  std::vector<std::int64_t> pad(2 * (x.dim() - dim), 0);
  pad.back() = size - x.size(dim);
  return pad.back() == 0 ? x : at::constant_pad_nd(x, pad);
}

// [heads * head, ...] -> [heads * padded, ...].
at::Tensor PadHeads(const at::Tensor& x, int heads, int padded) {
  return PadTo(x.unflatten(0, {heads, -1}), 1, padded).flatten(0, 1);
}

// Rows of [gate; up] in the order in which the fused GEMM reads them.
at::Tensor PackedRows(int mlp) {
  std::vector<std::int64_t> rows(2 * mlp);
  for (int i = 0; i < mlp; ++i) {
    const int gate = kernels::GegluGateRow(i);
    rows[gate] = i;
    rows[gate + kernels::kGegluUpOffset] = mlp + i;
  }
  return at::tensor(rows).to(at::kCUDA);
}

class Packer {
 public:
  Packer(const checkpoint::Weights& weights)
      : variant_(weights.variant()), load_(weights) {}

  EngineWeights Pack(const std::vector<int>& step_counts, GateUp gate_up);
  const absl::Status& status() const { return load_.status(); }
  const std::string& last() const { return load_.last(); }

 private:
  void PackVision(VisionWeights& to);
  VisionWeights::Layer VisionLayer(const std::string& layer,
                                   const VisionWeights& sizes);
  VisionWeights::Norm VisionNorm(const std::string& name);
  VisionWeights::Projection BehindNorm(const std::string& norm,
                                       const at::Tensor& weight,
                                       const at::Tensor& bias);
  void PackGemma(const GemmaSize& size, const std::string& model, bool adaptive,
                 bool keys_only_at_the_end, GemmaWeights& to);
  at::Tensor Gain(const std::string& name);
  void PackSuffix(SuffixWeights& to);
  void Stop() const {
    if (!load_.status().ok()) throw std::runtime_error("loading stopped");
  }

  const Variant& variant_;
  TensorLoader load_;
};

VisionWeights::Norm Packer::VisionNorm(const std::string& name) {
  return {load_.Rounded(name + ".weight"), load_.Rounded(name + ".bias")};
}

// (n * gain + shift) W^T + b = n (W * gain)^T + (b + W shift).
VisionWeights::Projection Packer::BehindNorm(const std::string& norm,
                                             const at::Tensor& weight,
                                             const at::Tensor& bias) {
  const VisionWeights::Norm affine = VisionNorm(norm);
  Stop();
  const at::Tensor wide = weight.to(at::kFloat);
  VisionWeights::Projection to;
  to.weight = at::mul(wide, affine.weight).to(at::kBFloat16);
  to.bias = at::add(bias.to(at::kFloat), at::matmul(wide, affine.bias))
                .to(at::kBFloat16);
  to.sums = at::sum(to.weight.to(at::kFloat), 1);
  return to;
}

VisionWeights::Layer Packer::VisionLayer(const std::string& layer,
                                         const VisionWeights& sizes) {
  const int heads = variant_.vision.heads;
  VisionWeights::Layer to;
  std::vector<at::Tensor> weights, biases;
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    const std::string full = absl::StrCat(layer, "self_attn.", name);
    weights.push_back(load_.Bf16(full + ".weight"));
    biases.push_back(load_.Bf16(full + ".bias"));
    Stop();
    weights.back() = PadHeads(weights.back(), heads, sizes.head);
    biases.back() = PadHeads(biases.back(), heads, sizes.head);
  }
  to.qkv = BehindNorm(layer + "layer_norm1", at::cat(weights), at::cat(biases));
  const at::Tensor out = load_.Bf16(layer + "self_attn.out_proj.weight");
  to.out_bias = load_.Bf16(layer + "self_attn.out_proj.bias");
  const at::Tensor fc1 = load_.Bf16(layer + "mlp.fc1.weight");
  const at::Tensor fc1_bias = load_.Bf16(layer + "mlp.fc1.bias");
  const at::Tensor fc2 = load_.Bf16(layer + "mlp.fc2.weight");
  to.fc2_bias = load_.Bf16(layer + "mlp.fc2.bias");
  Stop();
  to.out = PadHeads(out.t(), heads, sizes.head).t().contiguous();
  to.fc1 = BehindNorm(layer + "layer_norm2", PadTo(fc1, 0, sizes.mlp),
                      PadTo(fc1_bias, 0, sizes.mlp));
  to.fc2 = PadTo(fc2, 1, sizes.mlp).contiguous();
  return to;
}

void Packer::PackVision(VisionWeights& to) {
  const VisionSize& size = variant_.vision;
  const std::string model(checkpoint::kVisionPrefix);
  to.head = RoundUp(size.head_dim(), kAccess);
  to.mlp = RoundUp(size.mlp, kLine);
  to.patch_pitch = RoundUp(3 * size.patch * size.patch, kLine);
  const at::Tensor patch =
      load_.Bf16(model + "embeddings.patch_embedding.weight");
  const at::Tensor bias =
      load_.Rounded(model + "embeddings.patch_embedding.bias");
  const at::Tensor position =
      load_.Rounded(model + "embeddings.position_embedding.weight");
  Stop();
  const at::Tensor flat = patch.flatten(1);
  to.patch = PadTo(flat, 1, to.patch_pitch).contiguous();
  // W (2u/255 - 1) + b = (2/255) W u + (b - sum W): the kernels see u.
  const at::Tensor sum = at::sum(flat.to(at::kDouble), 1);
  to.position =
      at::add(position.to(at::kDouble), at::sub(bias.to(at::kDouble), sum))
          .to(at::kFloat);
  for (int i = 0; i < size.depth; ++i) {
    to.layers.push_back(
        VisionLayer(absl::StrCat(model, "encoder.layers.", i, "."), to));
  }
  to.post_norm = VisionNorm(model + "post_layernorm");
  to.plain_norm = {at::ones_like(to.post_norm.weight),
                   at::zeros_like(to.post_norm.weight)};
  const std::string projector(checkpoint::kProjectorPrefix);
  to.projector = load_.Bf16(projector + "weight");
  to.projector_bias = load_.Bf16(projector + "bias");
}

// docs/pi0.md 2.6: n * (1 + w).
at::Tensor Packer::Gain(const std::string& name) {
  const at::Tensor weight = load_.Rounded(name + ".weight");
  Stop();
  return at::add(weight, 1.0);
}

void Packer::PackGemma(const GemmaSize& size, const std::string& model,
                       bool adaptive, bool keys_only_at_the_end,
                       GemmaWeights& to) {
  for (int i = 0; i < size.depth; ++i) {
    const std::string layer = absl::StrCat(model, "layers.", i, ".");
    const auto get = [&](const char* name) {
      at::Tensor tensor = load_.Bf16(absl::StrCat(layer, name, ".weight"));
      Stop();
      return tensor;
    };
    GemmaWeights::Layer& l = to.layers.emplace_back();
    if (!adaptive) l.input_gain = Gain(layer + "input_layernorm");
    if (keys_only_at_the_end && i + 1 == size.depth) {
      l.qkv = at::cat({get("self_attn.k_proj"), get("self_attn.v_proj")});
      return;
    }
    l.qkv = at::cat({get("self_attn.q_proj"), get("self_attn.k_proj"),
                     get("self_attn.v_proj")});
    l.o = get("self_attn.o_proj");
    if (!adaptive) l.post_gain = Gain(layer + "post_attention_layernorm");
    l.gate_up = at::cat({get("mlp.gate_proj"), get("mlp.up_proj")});
    if (to.gate_up == GateUp::kPacked) {
      l.gate_up = at::index_select(l.gate_up, 0, PackedRows(size.mlp));
    }
    l.down = get("mlp.down_proj");
  }
  if (!adaptive) to.final_gain = Gain(model + "norm");
}

void Packer::PackSuffix(SuffixWeights& to) {
  to.action_in = load_.Outer("action_in_proj.weight");
  to.action_out = load_.Outer("action_out_proj.weight");
  to.action_out_bias = load_.Outer("action_out_proj.bias");
  Stop();
  to.action_in_transposed = Transposed(to.action_in);
  if (variant_.pi05) return;
  const at::Tensor mix = load_.Outer("action_time_mlp_in.weight");
  const at::Tensor out = load_.Outer("action_time_mlp_out.weight");
  const at::Tensor bias = load_.Outer("action_time_mlp_out.bias");
  to.state = load_.Outer("state_proj.weight");
  to.state_bias = load_.Outer("state_proj.bias");
  Stop();
  const at::Tensor action_half = mix.narrow(1, 0, variant_.expert.width);
  to.action_in =
      at::matmul(action_half.to(at::kDouble), to.action_in.to(at::kDouble))
          .to(at::kFloat);
  to.action_in_transposed = Transposed(to.action_in);
  to.state_transposed = Transposed(to.state);
  to.mix_out = out.to(at::kBFloat16);
  to.mix_out_bias = bias.to(at::kBFloat16);
}

EngineWeights Packer::Pack(const std::vector<int>& step_counts,
                           GateUp gate_up) {
  EngineWeights to;
  PackVision(to.vision);
  to.embedding = load_.Bf16(std::string(checkpoint::kTokenEmbedding));
  if (kernels::GegluGemmSupports(variant_.vlm.width, variant_.vlm.mlp)) {
    to.vlm.gate_up = gate_up;
  }
  PackGemma(variant_.vlm, std::string(checkpoint::kVlmPrefix),
            /*adaptive=*/false, /*keys_only_at_the_end=*/true, to.vlm);
  if (kernels::GegluGemmSupports(variant_.expert.width, variant_.expert.mlp)) {
    to.expert.gate_up = gate_up;
  }
  PackGemma(variant_.expert, std::string(checkpoint::kExpertPrefix),
            variant_.pi05, /*keys_only_at_the_end=*/false, to.expert);
  PackSuffix(to.suffix);
  to.steps = MakeStepTables(variant_, step_counts, load_);
  return to;
}

}  // namespace

absl::StatusOr<EngineWeights> LoadWeights(const checkpoint::Weights& weights,
                                          const std::vector<int>& step_counts,
                                          GateUp gate_up) {
  Packer packer(weights);
  try {
    EngineWeights packed = packer.Pack(step_counts, gate_up);
    if (!packer.status().ok()) return packer.status();
    return packed;
  } catch (const c10::OutOfMemoryError& e) {
    return absl::FailedPreconditionError(
        absl::StrCat(packer.last(), ": does not fit into the device's memory: ",
                     e.what_without_backtrace()));
  } catch (const std::exception& e) {
    if (!packer.status().ok()) return packer.status();
    return absl::InternalError(absl::StrCat("packing weights: ", e.what()));
  }
}

}  // namespace piserve::engine
