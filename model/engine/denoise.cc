// SPDX-License-Identifier: Apache-2.0
#include "model/engine/gated_up.h"
#include "model/engine/stages.h"
#include "model/engine/suffix_attention.h"
#include "model/kernels/cluster_gemm/cluster_gemm.h"
#include "model/kernels/norm.h"
#include "model/kernels/prefix.h"
#include "model/kernels/suffix.h"
#include "model/kernels/wave.h"

namespace piserve::engine {
namespace {

using Bf16 = __nv_bfloat16;

class DenoiseStage {
 public:
  DenoiseStage(const StageContext& context, int rows, StepKind kind,
               Launcher& launcher)
      : variant_(context.variant),
        size_(context.variant.expert),
        weights_(context.weights),
        b_(context.buffers),
        optimisations_(context.optimisations),
        rows_(rows),
        with_state_(!variant_.pi05 && kind == StepKind::kFirst),
        per_row_(variant_.action_horizon + with_state_),
        tokens_(rows * per_row_),
        launcher_(launcher) {}

  void Run();

 private:
  void Embed();
  void EmbedState();
  void Norm(const at::Tensor& gain, int norm);
  void Attend(const GemmaWeights::Layer& layer, int index);
  void Mlp(const GemmaWeights::Layer& layer);
  void StepActions();
  void Linear(int n, int k, const at::Tensor& x, const at::Tensor& weight,
              const at::Tensor& y, Output output);
  void LinearToResidual(const char* what, int k, const at::Tensor& x,
                        const at::Tensor& weight);

  kernels::StepTable Modulation(int norm, int part) const;
  // Where adaRMS gates, the product goes to suffix_y first.
  bool gated() const { return variant_.pi05; }
  const at::Tensor& ResidualTarget() const {
    return gated() ? b_.suffix_y : b_.suffix_x;
  }
  Output ResidualOutput() const {
    return gated() ? Output::kReplace : Output::kAccumulate;
  }
  kernels::SuffixTokens ActionTokens() const {
    return {.count = variant_.action_horizon,
            .first = per_row_ - variant_.action_horizon,
            .stride = per_row_};
  }

  const Variant& variant_;
  const GemmaSize& size_;
  const EngineWeights& weights_;
  Buffers& b_;
  const Optimisations& optimisations_;
  const int rows_;
  const bool with_state_;
  const int per_row_;  // suffix tokens that this step computes
  const int tokens_;
  Launcher& launcher_;
};

void DenoiseStage::Run() {
  Embed();
  if (with_state_) EmbedState();
  for (int i = 0; i < size_.depth; ++i) {
    const GemmaWeights::Layer& layer = weights_.expert.layers[i];
    Norm(layer.input_gain, 2 * i);
    Attend(layer, i);
    Norm(layer.post_gain, 2 * i + 1);
    Mlp(layer);
  }
  Norm(weights_.expert.final_gain, 2 * size_.depth);
  StepActions();
}

void DenoiseStage::Linear(int n, int k, const at::Tensor& x,
                          const at::Tensor& weight, const at::Tensor& y,
                          Output output) {
  launcher_.Gemm(
      {.m = tokens_, .n = n, .k = k, .output = output},
      {.x = x.data_ptr(), .w = weight.data_ptr(), .y = y.data_ptr()});
}

// To the residual. Eight rows make too few tiles to fill the device: there
// clusters divide the inputs, too.
void DenoiseStage::LinearToResidual(const char* what, int k,
                                    const at::Tensor& x,
                                    const at::Tensor& weight) {
  if (!optimisations_.split_sums ||
      !kernels::ClusterGemmSupports(tokens_, k, size_.width)) {
    Linear(size_.width, k, x, weight, ResidualTarget(), ResidualOutput());
    return;
  }
  launcher_.Run(what, [&](cudaStream_t stream) {
    return kernels::LaunchClusterGemm(
        {.x = Data<Bf16>(x),
         .w = Data<Bf16>(weight),
         .y = Data<Bf16>(ResidualTarget()),
         .adds = ResidualOutput() == Output::kAccumulate,
         .tokens = tokens_,
         .in = k,
         .out = size_.width},
        stream);
  });
}

// Scale (0), shift (1) or gate (2) of one norm.
kernels::StepTable DenoiseStage::Modulation(int norm, int part) const {
  const at::Tensor& table = weights_.steps.modulation;
  return {.base = Data<float>(table) + table.stride(1) * norm +
                  table.stride(2) * part,
          .step = Data<int>(b_.step),
          .stride = table.stride(0)};
}

// docs/pi0.md 2.10, folded: pi0's first layer is one [width, action_dim]
// product plus a constant of the step.
void DenoiseStage::Embed() {
  const bool mixes = !variant_.pi05;
  const at::Tensor& bias = weights_.steps.action_bias;
  launcher_.Run("action projection", [&](cudaStream_t stream) {
    return kernels::LaunchSmallLinear(
        {.x = Data<float>(b_.x),
         .weight = Data<float>(weights_.suffix.action_in_transposed),
         .bias = {.base = Data<float>(bias),
                  .step = mixes ? Data<int>(b_.step) : nullptr,
                  .stride = bias.stride(0)},
         .y = Data<Bf16>(mixes ? b_.mixed : b_.suffix_x),
         .tokens = ActionTokens(),
         .rows = rows_ * variant_.action_horizon,
         .in = variant_.action_dim,
         .out = size_.width,
         .activation =
             mixes ? kernels::Activation::kSilu : kernels::Activation::kNone},
        stream);
  });
  if (!mixes) return;
  launcher_.Gemm({.m = tokens_,
                  .n = size_.width,
                  .k = size_.width,
                  .epilogue = Epilogue::kBias},
                 {.x = b_.mixed.data_ptr(),
                  .w = weights_.suffix.mix_out.data_ptr(),
                  .bias = weights_.suffix.mix_out_bias.data_ptr(),
                  .y = b_.suffix_x.data_ptr()});
}

void DenoiseStage::EmbedState() {
  launcher_.Run("state projection", [&](cudaStream_t stream) {
    return kernels::LaunchSmallLinear(
        {.x = Data<float>(b_.state),
         .weight = Data<float>(weights_.suffix.state_transposed),
         .bias = {.base = Data<float>(weights_.suffix.state_bias)},
         .y = Data<Bf16>(b_.suffix_x),
         .tokens = {.count = 1, .first = 0, .stride = per_row_},
         .rows = rows_,
         .in = variant_.action_dim,
         .out = size_.width},
        stream);
  });
}

// Norm number `norm` of the step. With adaRMS what the sub-block before it left
// in suffix_y is added first, gated by the norm in front of that sub-block
// (docs/pi0.md 2.11); without, its GEMM has added it.
void DenoiseStage::Norm(const at::Tensor& gain, int norm) {
  launcher_.Run("suffix norm", [&](cudaStream_t stream) {
    Bf16* x = Data<Bf16>(b_.suffix_x);
    Bf16* h = Data<Bf16>(b_.suffix_h);
    if (!gated()) {
      return kernels::LaunchRmsNorm(x, Data<float>(gain), h, tokens_,
                                    size_.width, stream);
    }
    const bool adds = norm > 0;
    return kernels::LaunchAddAdaRmsNorm(
        {.x = x,
         .y = adds ? Data<Bf16>(b_.suffix_y) : nullptr,
         .h = h,
         .gate = adds ? Modulation(norm - 1, 2) : kernels::StepTable{},
         .scale = Modulation(norm, 0),
         .shift = Modulation(norm, 1),
         .rows = tokens_,
         .width = size_.width},
        stream);
  });
}

void DenoiseStage::Attend(const GemmaWeights::Layer& layer, int index) {
  const int inner = size_.heads * size_.head_dim;
  Linear(inner + 2 * size_.kv_heads * size_.head_dim, size_.width, b_.suffix_h,
         layer.qkv, b_.suffix_qkv, Output::kReplace);
  launcher_.Run("suffix RoPE", [&](cudaStream_t stream) {
    return kernels::LaunchRopeScatter(
        {.qkv = Data<Bf16>(b_.suffix_qkv),
         .table = Data<float2>(b_.rope),
         .start = Data<int>(b_.prefix_len),
         .cache_k = Data<Bf16>(b_.keys[index]),
         .cache_v = Data<Bf16>(b_.values[index]),
         .rows = rows_,
         .seq = per_row_,
         .heads = size_.heads,
         .kv_heads = size_.kv_heads,
         .head_dim = size_.head_dim,
         .cache_len = b_.cache_len,
         .start_offset = variant_.suffix_len() - per_row_},
        stream);
  });
  EnqueueSuffixAttention(
      {.size = size_,
       .qkv = b_.suffix_qkv,
       .keys = b_.keys[index],
       .values = b_.values[index],
       .prefix_len = b_.prefix_len,
       .out = b_.suffix_o,
       .rows = rows_,
       .tokens = per_row_,
       .suffix_keys = variant_.suffix_len(),
       .first_token = with_state_ ? kernels::FirstToken::kSeesItself
                                  : kernels::FirstToken::kSeesAll},
      optimisations_, launcher_);
  LinearToResidual("suffix out", inner, b_.suffix_o, layer.o);
}

void DenoiseStage::Mlp(const GemmaWeights::Layer& layer) {
  EnqueueGatedUp({.what = "suffix gate and up",
                  .size = size_,
                  .order = weights_.expert.gate_up,
                  .x = b_.suffix_h,
                  .w = layer.gate_up,
                  .gate_up = b_.suffix_gate_up,
                  .y = b_.suffix_act,
                  .tokens = tokens_},
                 launcher_);
  LinearToResidual("suffix down", size_.mlp, b_.suffix_act, layer.down);
}

void DenoiseStage::StepActions() {
  launcher_.Run("action step", [&](cudaStream_t stream) {
    return kernels::LaunchActionStep(
        {.hidden = Data<Bf16>(b_.suffix_h),
         .tokens = ActionTokens(),
         .weight = Data<float>(weights_.suffix.action_out),
         .bias = Data<float>(weights_.suffix.action_out_bias),
         .x = Data<float>(b_.x),
         .velocity = Data<float>(b_.velocity),
         .dt = {.base = Data<float>(weights_.steps.dt),
                .step = Data<int>(b_.step),
                .stride = 1},
         .rows = rows_ * variant_.action_horizon,
         .width = size_.width,
         .dim = variant_.action_dim},
        stream);
  });
  launcher_.Run("next step", [&](cudaStream_t stream) {
    return kernels::LaunchAdvance(Data<int>(b_.step), stream);
  });
}

}  // namespace

void EnqueueStep(const StageContext& context, int rows, StepKind kind,
                 Launcher& launcher) {
  DenoiseStage(context, rows, kind, launcher).Run();
}

}  // namespace piserve::engine
