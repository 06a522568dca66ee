// SPDX-License-Identifier: Apache-2.0
#include "model/engine/persistent_denoise.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>

#include <cstdint>
#include <vector>

#include "absl/memory/memory.h"
#include "model/kernels/expert/expert.h"

namespace piserve::engine {
namespace {

using Bf16 = __nv_bfloat16;

kernels::ExpertForm FormOf(const Variant& variant) {
  return variant.pi05 ? kernels::ExpertForm::kPi05 : kernels::ExpertForm::kPi0;
}

constexpr std::uintptr_t kAlignment = 1024;  // of the kernel's workspace

void* Aligned(void* memory) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  return reinterpret_cast<void*>((address + kAlignment - 1) / kAlignment *
                                 kAlignment);
}

at::Tensor Bytes(std::size_t count) {
  return at::empty({static_cast<std::int64_t>(count)},
                   at::TensorOptions(at::kByte).device(at::kCUDA));
}

// The engine's merged matrices, taken apart again.
kernels::ExpertWeights Matrices(const Variant& variant,
                                const EngineWeights& weights) {
  const GemmaSize& size = variant.expert;
  const std::int64_t query = std::int64_t{size.heads} * size.head_dim;
  const std::int64_t key = std::int64_t{size.kv_heads} * size.head_dim;
  const auto rows = weights.expert.gate_up == GateUp::kPacked
                        ? kernels::GateUpRows::kPacked
                        : kernels::GateUpRows::kSeparate;
  kernels::ExpertWeights matrices;
  for (int i = 0; i < size.depth; ++i) {
    const GemmaWeights::Layer& layer = weights.expert.layers[i];
    const Bf16* qkv = Data<Bf16>(layer.qkv);
    const Bf16* gate = Data<Bf16>(layer.gate_up);
    matrices.layers[i] = {.q = qkv,
                          .k = qkv + query * size.width,
                          .v = qkv + (query + key) * size.width,
                          .o = Data<Bf16>(layer.o),
                          .gate = gate,
                          .up = gate + std::int64_t{size.mlp} * size.width,
                          .down = Data<Bf16>(layer.down),
                          .gate_up = rows};
  }
  if (!variant.pi05) {
    matrices.suffix_mlp_out = Data<Bf16>(weights.suffix.mix_out);
  }
  return matrices;
}

// w of every norm in the order of a step; the engine keeps 1 + w.
at::Tensor NormWeights(const GemmaWeights& expert) {
  std::vector<at::Tensor> gains;
  for (const GemmaWeights::Layer& layer : expert.layers) {
    gains.push_back(layer.input_gain);
    gains.push_back(layer.post_gain);
  }
  gains.push_back(expert.final_gain);
  return at::sub(at::stack(gains), 1.0);
}

float* FloatsOrNull(const at::Tensor& tensor) {
  return tensor.defined() ? Data<float>(tensor) : nullptr;
}

}  // namespace

bool PersistentDenoise::Supports(const Variant& v, int rows, int processors) {
  return processors >= kernels::kExpertProcessors &&
         v.expert.width == kernels::kExpertWidth &&
         v.expert.depth == kernels::kExpertDepth &&
         v.expert.mlp == kernels::kExpertMlp && v.expert.heads == 8 &&
         v.expert.kv_heads == 1 && v.expert.head_dim == 256 &&
         v.action_dim == kernels::kExpertActionDim &&
         kernels::ExpertSupports(FormOf(v), rows, v.action_horizon,
                                 v.prefix_len());
}

double PersistentDenoise::NeededBytes(const EngineWeights& weights, int rows) {
  const at::Tensor& modulation = weights.steps.modulation;
  const int times = modulation.defined() ? modulation.size(0) : 0;
  return static_cast<double>(kernels::ExpertPackedBytes() +
                             kernels::ExpertWorkspaceBytes(rows) +
                             kernels::ExpertShiftBytes(times));
}

PersistentDenoise::PersistentDenoise(const Variant& variant,
                                     const EngineWeights& weights, int rows,
                                     Buffers& buffers)
    : variant_(variant),
      weights_(weights),
      most_rows_(rows),
      buffers_(buffers) {}

absl::StatusOr<std::unique_ptr<PersistentDenoise>> PersistentDenoise::Create(
    const Variant& variant, const EngineWeights& weights, int rows,
    Buffers& buffers, Launcher& launcher) {
  auto made =
      absl::WrapUnique(new PersistentDenoise(variant, weights, rows, buffers));
  made->Pack(launcher);
  if (!launcher.ok()) return launcher.status();
  return made;
}

void PersistentDenoise::Pack(Launcher& launcher) {
  const kernels::ExpertWeights matrices = Matrices(variant_, weights_);
  packed_ = Bytes(kernels::ExpertPackedBytes());
  workspace_ = Bytes(kernels::ExpertWorkspaceBytes(most_rows_) + kAlignment);
  launcher.Run("packing the expert", [&](cudaStream_t stream) {
    return kernels::LaunchExpertPack(matrices, packed_.data_ptr(), stream);
  });
  if (!variant_.pi05) {
    norm_ = NormWeights(weights_.expert);
    mix_bias_ = weights_.suffix.mix_out_bias.to(at::kFloat);
    return;
  }
  norm_ = weights_.steps.modulation;
  const int rows = static_cast<int>(norm_.size(0));
  shift_ = Bytes(kernels::ExpertShiftBytes(rows));
  launcher.Run("pi0.5's shifts", [&](cudaStream_t stream) {
    return kernels::LaunchExpertShift(
        {.weights = matrices,
         .modulation = Data<float>(norm_),
         .out_weight = Data<float>(weights_.suffix.action_out),
         .out_bias = Data<float>(weights_.suffix.action_out_bias),
         .rows = rows,
         .shift = Data<float>(shift_)},
        stream);
  });
}

void PersistentDenoise::Enqueue(int rows, Launcher& launcher) const {
  const SuffixWeights& suffix = weights_.suffix;
  launcher.Run("denoising", [&](cudaStream_t stream) {
    return kernels::LaunchExpert(
        {.form = FormOf(variant_),
         .rows = rows,
         .horizon = variant_.action_horizon,
         .cache_len = variant_.prefix_len(),
         .packed = packed_.data_ptr(),
         .norm = Data<float>(norm_),
         .shift = FloatsOrNull(shift_),
         .in_weight = Data<float>(suffix.action_in),
         .in_bias = Data<float>(weights_.steps.action_bias),
         .suffix_bias = FloatsOrNull(mix_bias_),
         .state_weight = FloatsOrNull(suffix.state),
         .state_bias = FloatsOrNull(suffix.state_bias),
         .state = Data<float>(buffers_.state),
         .out_weight = Data<float>(suffix.action_out),
         .out_bias = Data<float>(suffix.action_out_bias),
         .rope = Data<float2>(buffers_.rope),
         .cache_k = Data<Bf16>(buffers_.keys),
         .cache_v = Data<Bf16>(buffers_.values),
         .cache_stride = buffers_.keys.stride(0),
         .row_stride = buffers_.keys.stride(1),
         .call = Data<kernels::ExpertCall>(buffers_.call),
         .x = Data<float>(buffers_.x),
         .workspace = Aligned(workspace_.data_ptr())},
        stream);
  });
}

}  // namespace piserve::engine
