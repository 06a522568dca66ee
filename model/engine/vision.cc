// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/_flash_attention_forward.h>

#include <cmath>

#include "model/engine/stages.h"
#include "model/kernels/bias_gemm/bias_gemm.h"
#include "model/kernels/image.h"
#include "model/kernels/norm.h"
#include "model/kernels/norm_gemm/norm_gemm.h"
#include "model/kernels/vision_attention.h"
#include "model/kernels/weight_gemm/gelu_gemm.h"

namespace piserve::engine {
namespace {

using Bf16 = __nv_bfloat16;

class VisionStage {
 public:
  VisionStage(const StageContext& context, const PrefixShape& shape,
              Launcher& launcher)
      : size_(context.variant.vision),
        weights_(context.weights.vision),
        b_(context.buffers),
        optimisations_(context.optimisations),
        shape_(shape),
        launcher_(launcher),
        images_(shape.rows * shape.cameras),
        tokens_(images_ * size_.tokens()) {}

  void Run(int vlm_width) {
    Embed();
    for (const VisionWeights::Layer& layer : weights_.layers) {
      Attend(layer);
      Mlp(layer);
    }
    Norm(weights_.post_norm);
    Linear(vlm_width, size_.width, b_.vision_h, weights_.projector,
           weights_.projector_bias, b_.image_tokens, Epilogue::kBias,
           Output::kReplace);
  }

 private:
  void Embed();
  void Norm(const VisionWeights::Norm& norm);
  void Attend(const VisionWeights::Layer& layer);
  at::Tensor Attention();
  void Mlp(const VisionWeights::Layer& layer);
  void ExpandByLargeTiles(const VisionWeights::Projection& fc1);
  void AddLinear(const char* what, int k, const at::Tensor& x,
                 const at::Tensor& weight, const at::Tensor& bias);
  void NormalisedLinear(int n, const VisionWeights::Projection& projection,
                        const at::Tensor& y, Epilogue epilogue);
  void Linear(int n, int k, const at::Tensor& x, const at::Tensor& weight,
              const at::Tensor& bias, const at::Tensor& y, Epilogue epilogue,
              Output output);

  const VisionSize& size_;
  const VisionWeights& weights_;
  Buffers& b_;
  const Optimisations& optimisations_;
  const PrefixShape& shape_;
  Launcher& launcher_;
  const int images_;
  const int tokens_;
};

void VisionStage::Linear(int n, int k, const at::Tensor& x,
                         const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& y, Epilogue epilogue,
                         Output output) {
  launcher_.Gemm(
      {.m = tokens_, .n = n, .k = k, .epilogue = epilogue, .output = output},
      {.x = x.data_ptr(),
       .w = weight.data_ptr(),
       .bias = bias.data_ptr(),
       .y = y.data_ptr()});
}

// Added to vision_x.
void VisionStage::AddLinear(const char* what, int k, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& bias) {
  if (!optimisations_.large_tiles ||
      !kernels::BiasGemmSupports(tokens_, k, size_.width)) {
    Linear(size_.width, k, x, weight, bias, b_.vision_x, Epilogue::kBias,
           Output::kAccumulate);
    return;
  }
  launcher_.Run(what, [&](cudaStream_t stream) {
    return kernels::LaunchBiasGemm({.x = Data<Bf16>(x),
                                    .w = Data<Bf16>(weight),
                                    .bias = Data<Bf16>(bias),
                                    .y = Data<Bf16>(b_.vision_x),
                                    .tokens = tokens_,
                                    .in = k,
                                    .out = size_.width},
                                   stream);
  });
}

// vision_x, normalised, to y: in one kernel where it knows the sizes, else in
// two.
void VisionStage::NormalisedLinear(int n,
                                   const VisionWeights::Projection& projection,
                                   const at::Tensor& y, Epilogue epilogue) {
  if (!optimisations_.fused_norm ||
      !kernels::NormGemmSupports(tokens_, size_.width, n)) {
    Norm(weights_.plain_norm);
    Linear(n, size_.width, b_.vision_h, projection.weight, projection.bias, y,
           epilogue, Output::kReplace);
    return;
  }
  launcher_.Run("vision norm and projection", [&](cudaStream_t stream) {
    return kernels::LaunchNormGemm(
        {.x = Data<Bf16>(b_.vision_x),
         .w = Data<Bf16>(projection.weight),
         .sums = Data<float>(projection.sums),
         .bias = Data<Bf16>(projection.bias),
         .y = Data<Bf16>(y),
         .tokens = tokens_,
         .in = size_.width,
         .out = n,
         .activation = epilogue == Epilogue::kGeluBias
                           ? kernels::NormGemmActivation::kGeluTanh
                           : kernels::NormGemmActivation::kNone},
        stream);
  });
}

// vision_x, normalised, to vision_mlp.
void VisionStage::ExpandByLargeTiles(const VisionWeights::Projection& fc1) {
  launcher_.Run("vision moments", [&](cudaStream_t stream) {
    return kernels::LaunchLayerMoments(Data<Bf16>(b_.vision_x),
                                       Data<float2>(b_.vision_moments), tokens_,
                                       size_.width, stream);
  });
  launcher_.Run("vision fc1", [&](cudaStream_t stream) {
    return kernels::LaunchGeluGemm({.x = Data<Bf16>(b_.vision_x),
                                    .moments = Data<float2>(b_.vision_moments),
                                    .w = Data<Bf16>(fc1.weight),
                                    .sums = Data<float>(fc1.sums),
                                    .bias = Data<Bf16>(fc1.bias),
                                    .y = Data<Bf16>(b_.vision_mlp),
                                    .tokens = tokens_,
                                    .in = size_.width,
                                    .out = weights_.mlp},
                                   stream);
  });
}

// Steps 1 to 3 of docs/pi0.md 2.3.
void VisionStage::Embed() {
  launcher_.Run("patchify", [&](cudaStream_t stream) {
    return kernels::LaunchPatchify({.pixels = Data<std::uint8_t>(b_.pixels),
                                    .row_base = Data<int>(b_.row_base),
                                    .image_len = Data<int>(b_.micro_image_len),
                                    .patches = Data<Bf16>(b_.patches),
                                    .rows = shape_.rows,
                                    .cameras = Variant::kCameras,
                                    .slots = shape_.cameras,
                                    .image = size_.image,
                                    .patch = size_.patch,
                                    .pitch = weights_.patch_pitch},
                                   stream);
  });
  launcher_.Gemm({.m = tokens_,
                  .n = size_.width,
                  .k = weights_.patch_pitch,
                  .type = GemmType::kBf16ToFp32},
                 {.x = b_.patches.data_ptr(),
                  .w = weights_.patch.data_ptr(),
                  .y = b_.patch_grid.data_ptr(),
                  .alpha = 2.0f / 255});
  launcher_.Run("patch positions", [&](cudaStream_t stream) {
    return kernels::LaunchAddPosition(
        Data<float>(b_.patch_grid), Data<float>(weights_.position),
        Data<Bf16>(b_.vision_x), images_, size_.tokens(), size_.width, stream);
  });
}

void VisionStage::Norm(const VisionWeights::Norm& norm) {
  launcher_.Run("vision norm", [&](cudaStream_t stream) {
    return kernels::LaunchLayerNorm(
        Data<Bf16>(b_.vision_x), Data<float>(norm.weight),
        Data<float>(norm.bias), Data<Bf16>(b_.vision_h), tokens_, size_.width,
        stream);
  });
}

void VisionStage::Attend(const VisionWeights::Layer& layer) {
  const int inner = size_.heads * weights_.head;
  NormalisedLinear(3 * inner, layer.qkv, b_.vision_qkv, Epilogue::kBias);
  const at::Tensor o = Attention();
  if (!launcher_.ok()) return;
  AddLinear("vision out", inner, o, layer.out, layer.out_bias);
}

// [tokens, heads * padded head]: by our own kernel where it knows the shape,
// else by torch's flash attention.
at::Tensor VisionStage::Attention() {
  if (optimisations_.own_attention &&
      kernels::VisionAttentionSupports(size_.tokens(), size_.head_dim())) {
    launcher_.Run("vision attention", [&](cudaStream_t stream) {
      return kernels::LaunchVisionAttention({.qkv = Data<Bf16>(b_.vision_qkv),
                                             .out = Data<Bf16>(b_.vision_o),
                                             .images = images_,
                                             .tokens = size_.tokens(),
                                             .heads = size_.heads,
                                             .head_dim = size_.head_dim()},
                                            stream);
    });
    return b_.vision_o;
  }
  if (!launcher_.ok()) return {};
  const at::Tensor qkv =
      b_.vision_qkv.narrow(0, 0, tokens_)
          .view({images_, size_.tokens(), 3, size_.heads, weights_.head});
  return std::get<0>(at::_flash_attention_forward(
      qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), {}, {},
      size_.tokens(), size_.tokens(), /*dropout_p=*/0, /*is_causal=*/false,
      /*return_debug_mask=*/false,
      /*scale=*/1 / std::sqrt(static_cast<double>(size_.head_dim()))));
}

void VisionStage::Mlp(const VisionWeights::Layer& layer) {
  if (optimisations_.large_tiles &&
      kernels::GeluGemmSupports(tokens_, size_.width, weights_.mlp)) {
    ExpandByLargeTiles(layer.fc1);
  } else {
    NormalisedLinear(weights_.mlp, layer.fc1, b_.vision_mlp,
                     Epilogue::kGeluBias);
  }
  AddLinear("vision fc2", weights_.mlp, b_.vision_mlp, layer.fc2,
            layer.fc2_bias);
}

}  // namespace

void EnqueueVision(const StageContext& context, const PrefixShape& shape,
                   Launcher& launcher) {
  Buffers& b = context.buffers;
  launcher.Run("begin a micro-wave", [&](cudaStream_t stream) {
    return kernels::LaunchBeginMicroWave(b.wave(), Data<int>(b.next_row),
                                         shape.rows, b.cache_len,
                                         b.micro_wave(), stream);
  });
  if (shape.cameras == 0) return;
  VisionStage(context, shape, launcher).Run(context.variant.vlm.width);
}

}  // namespace piserve::engine
