// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>

#include <cmath>

#include "model/engine/gated_up.h"
#include "model/engine/stages.h"
#include "model/kernels/norm.h"
#include "model/kernels/prefix.h"
#include "model/kernels/prefix_attention.h"
#include "model/kernels/weight_gemm/add_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"

namespace piserve::engine {
namespace {

using Bf16 = __nv_bfloat16;

class PrefillStage {
 public:
  PrefillStage(const StageContext& context, const PrefixShape& shape,
               Launcher& launcher)
      : variant_(context.variant),
        size_(context.variant.vlm),
        weights_(context.weights.vlm),
        b_(context.buffers),
        own_attention_(context.optimisations.own_attention),
        shape_(shape),
        launcher_(launcher),
        image_tokens_(shape.cameras * context.variant.vision.tokens()),
        len_(image_tokens_ + shape.prompt_tokens),
        tokens_(shape.rows * len_),
        down_(DownBy(context.optimisations)) {}

  void Run(const at::Tensor& embedding);

 private:
  // Who computes the down projection, and what it leaves to the next layer.
  enum class Down {
    kParts,       // split_gemm.h: halves, which the next norm adds to prefix_x
    kLargeTiles,  // add_gemm.h: prefix_x, and what replaces the next norm
    kLibrary,     // prefix_x
  };
  Down DownBy(const Optimisations& optimisations) const;

  void Embed(const at::Tensor& embedding);
  // What a norm adds to prefix_x first.
  enum class Residual { kNone, kParts };
  void Norm(const at::Tensor& gain, Residual residual);
  // Whether prefix_h is a norm's output, or the projection behind has to be
  // multiplied by what prefix_squares say.
  enum class Normalised { kYes, kButForSquares };
  Normalised NormaliseInput(const GemmaWeights::Layer& layer, int index);
  void ProjectKeys(const GemmaWeights::Layer& layer, int index, int heads,
                   Normalised normalised);
  void Attend(const GemmaWeights::Layer& layer, int index);
  at::Tensor Attention(int index);
  void Mlp(const GemmaWeights::Layer& layer, int index);
  void ProjectDown(int index);
  void Linear(int n, int k, const void* x, const at::Tensor& weight,
              const at::Tensor& y, Output output);

  const Variant& variant_;
  const GemmaSize& size_;
  const GemmaWeights& weights_;
  Buffers& b_;
  const bool own_attention_;
  const PrefixShape& shape_;
  Launcher& launcher_;
  const int image_tokens_;
  const int len_;
  const int tokens_;
  const Down down_;
};

PrefillStage::Down PrefillStage::DownBy(
    const Optimisations& optimisations) const {
  if (optimisations.split_sums &&
      kernels::SplitGemmSupports(tokens_, size_.mlp, size_.width)) {
    return Down::kParts;
  }
  return optimisations.large_tiles &&
                 kernels::AddGemmSupports(tokens_, size_.mlp, size_.width)
             ? Down::kLargeTiles
             : Down::kLibrary;
}

void PrefillStage::Run(const at::Tensor& embedding) {
  Embed(embedding);
  for (int i = 0; i < size_.depth; ++i) {
    const GemmaWeights::Layer& layer = weights_.layers[i];
    const Normalised input = NormaliseInput(layer, i);
    if (i + 1 == size_.depth) {
      ProjectKeys(layer, i, /*heads=*/0, input);
      return;
    }
    ProjectKeys(layer, i, size_.heads, input);
    Attend(layer, i);
    Norm(layer.post_gain, Residual::kNone);
    Mlp(layer, i);
  }
}

void PrefillStage::Linear(int n, int k, const void* x, const at::Tensor& weight,
                          const at::Tensor& y, Output output) {
  launcher_.Gemm({.m = tokens_, .n = n, .k = k, .output = output},
                 {.x = x, .w = weight.data_ptr(), .y = y.data_ptr()});
}

// docs/pi0.md 2.4, 2.5.
void PrefillStage::Embed(const at::Tensor& embedding) {
  launcher_.Run("prefix embedding", [&](cudaStream_t stream) {
    return kernels::LaunchEmbedPrefix(
        {.image_tokens = Data<Bf16>(b_.image_tokens),
         .embedding = Data<Bf16>(embedding),
         .tokens = Data<std::int32_t>(b_.tokens),
         .row_base = Data<int>(b_.row_base),
         .image_len = Data<int>(b_.micro_image_len),
         .prefix_len = Data<int>(b_.micro_prefix_len),
         .out = Data<Bf16>(b_.prefix_x),
         .scale = static_cast<float>(std::sqrt(size_.width)),
         .rows = shape_.rows,
         .slot_tokens = image_tokens_,
         .max_tokens = variant_.max_token_len,
         .capacity = len_,
         .width = size_.width,
         .vocab = variant_.vocab},
        stream);
  });
}

void PrefillStage::Norm(const at::Tensor& gain, Residual residual) {
  launcher_.Run("prefix norm", [&](cudaStream_t stream) {
    return kernels::LaunchAddRmsNorm(
        {.x = Data<Bf16>(b_.prefix_x),
         .parts = residual == Residual::kParts ? Data<float>(b_.prefix_parts)
                                               : nullptr,
         .h = Data<Bf16>(b_.prefix_h),
         .scale = {.base = Data<float>(gain)},
         .rows = tokens_,
         .width = size_.width},
        stream);
  });
}

PrefillStage::Normalised PrefillStage::NormaliseInput(
    const GemmaWeights::Layer& layer, int index) {
  if (index > 0 && down_ == Down::kLargeTiles) {
    return Normalised::kButForSquares;
  }
  Norm(layer.input_gain,
       index > 0 && down_ == Down::kParts ? Residual::kParts : Residual::kNone);
  return Normalised::kYes;
}

// Operations 2 to 4 of docs/pi0.md 2.6; with heads == 0 keys and values only.
void PrefillStage::ProjectKeys(const GemmaWeights::Layer& layer, int index,
                               int heads, Normalised normalised) {
  const int width = (heads + 2 * size_.kv_heads) * size_.head_dim;
  Linear(width, size_.width, b_.prefix_h.data_ptr(), layer.qkv, b_.prefix_qkv,
         Output::kReplace);
  launcher_.Run("prefix RoPE", [&](cudaStream_t stream) {
    return kernels::LaunchRopeScatter(
        {.qkv = Data<Bf16>(b_.prefix_qkv),
         .table = Data<float2>(b_.rope),
         .row_base = Data<int>(b_.row_base),
         .cache_k = Data<Bf16>(b_.keys[index]),
         .cache_v = Data<Bf16>(b_.values[index]),
         .rows = shape_.rows,
         .seq = len_,
         .heads = heads,
         .kv_heads = size_.kv_heads,
         .head_dim = size_.head_dim,
         .cache_len = b_.cache_len,
         .squares = normalised == Normalised::kYes
                        ? nullptr
                        : Data<float>(b_.prefix_squares),
         .parts = size_.width / kernels::kAddGemmSquares,
         .width = size_.width},
        stream);
  });
}

void PrefillStage::Attend(const GemmaWeights::Layer& layer, int index) {
  const at::Tensor o = Attention(index);
  if (!launcher_.ok()) return;
  Linear(size_.width, size_.heads * size_.head_dim, o.data_ptr(), layer.o,
         b_.prefix_x, Output::kAccumulate);
}

// [tokens, heads * head_dim]: by our own kernel where it knows the shape, else
// by torch's flash attention.
at::Tensor PrefillStage::Attention(int index) {
  const int heads = size_.heads, all = heads + 2 * size_.kv_heads;
  if (own_attention_ &&
      kernels::PrefixAttentionSupports(size_.head_dim, size_.kv_heads)) {
    launcher_.Run("prefix attention", [&](cudaStream_t stream) {
      return kernels::LaunchPrefixAttention(
          {.q = Data<Bf16>(b_.prefix_qkv),
           .token_stride = std::int64_t{all} * size_.head_dim,
           .cache_k = Data<Bf16>(b_.keys[index]),
           .cache_v = Data<Bf16>(b_.values[index]),
           .row_base = Data<int>(b_.row_base),
           .prefix_len = Data<int>(b_.micro_prefix_len),
           .out = Data<Bf16>(b_.prefix_o),
           .begun = Data<unsigned>(b_.prefix_begun),
           .rows = shape_.rows,
           .tokens = len_,
           .heads = heads,
           .head_dim = size_.head_dim,
           .cache_len = b_.cache_len},
          stream);
    });
    return b_.prefix_o;
  }
  if (!launcher_.ok()) return {};
  const at::Tensor q = b_.prefix_qkv.narrow(0, 0, tokens_)
                           .view({tokens_, all, size_.head_dim})
                           .narrow(1, 0, heads);
  return std::get<0>(at::_flash_attention_forward(
      q, b_.keys[index].flatten(0, 1), b_.values[index].flatten(0, 1),
      at::arange(0, (shape_.rows + 1) * len_, len_,
                 at::TensorOptions(at::kInt).device(at::kCUDA)),
      b_.key_start.narrow(0, 0, shape_.rows + 1), len_, len_,
      /*dropout_p=*/0, /*is_causal=*/false, /*return_debug_mask=*/false,
      /*scale=*/1 / std::sqrt(static_cast<double>(size_.head_dim)),
      /*window_size_left=*/std::nullopt, /*window_size_right=*/std::nullopt,
      /*seqused_k=*/b_.micro_prefix_len.narrow(0, 0, shape_.rows)));
}

// prefix_h -> what Down makes of it.
void PrefillStage::Mlp(const GemmaWeights::Layer& layer, int index) {
  EnqueueGatedUp({.what = "prefix gate and up",
                  .size = size_,
                  .order = weights_.gate_up,
                  .x = b_.prefix_h,
                  .w = layer.gate_up,
                  .gate_up = b_.prefix_gate_up,
                  .y = b_.prefix_act,
                  .tokens = tokens_},
                 launcher_);
  ProjectDown(index);
}

// prefix_act -> what down_ says. The last layer has no such projection.
void PrefillStage::ProjectDown(int index) {
  const at::Tensor& weight = weights_.layers[index].down;
  switch (down_) {
    case Down::kParts:
      launcher_.Run("prefix down", [&](cudaStream_t stream) {
        return kernels::LaunchSplitGemm({.x = Data<Bf16>(b_.prefix_act),
                                         .w = Data<Bf16>(weight),
                                         .parts = Data<float>(b_.prefix_parts),
                                         .tokens = tokens_,
                                         .in = size_.mlp,
                                         .out = size_.width},
                                        stream);
      });
      return;
    case Down::kLargeTiles:
      launcher_.Run("prefix down", [&](cudaStream_t stream) {
        return kernels::LaunchAddGemm(
            {.x = Data<Bf16>(b_.prefix_act),
             .w = Data<Bf16>(weight),
             .y = Data<Bf16>(b_.prefix_x),
             .gain = Data<float>(weights_.layers[index + 1].input_gain),
             .gained = Data<Bf16>(b_.prefix_h),
             .squares = Data<float>(b_.prefix_squares),
             .tokens = tokens_,
             .in = size_.mlp,
             .out = size_.width},
            stream);
      });
      return;
    case Down::kLibrary:
      Linear(size_.width, size_.mlp, b_.prefix_act.data_ptr(), weight,
             b_.prefix_x, Output::kAccumulate);
  }
}

}  // namespace

void EnqueuePrefill(const StageContext& context, const PrefixShape& shape,
                    Launcher& launcher) {
  PrefillStage(context, shape, launcher).Run(context.weights.embedding);
}

}  // namespace piserve::engine
