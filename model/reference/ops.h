// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace piserve::reference {

// The operators of SigLIP and both Gemmas. Each computes in fp32 and rounds to
// the dtype of its input where openpi rounds: in FP32 mode nowhere. They throw
// c10::Error like any ATen operator.

// x in fp32, divided by its root mean square over the last dimension (epsilon
// 1e-6). Not rounded: the caller scales first.
// Source: openpi transformers_replace modeling_gemma.py, GemmaRMSNorm._norm
// (docs/pi0.md 2.6).
at::Tensor RmsNormalize(const at::Tensor& x);

// x @ weight^T + bias and a @ b: products summed in fp32, rounded once at the
// end (docs/pi0.md 0). Operands are widened first, so that the result does not
// depend on how well a processor knows bf16. weight: [out, in]; bias: [out] or
// undefined.
at::Tensor LinearOf(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias = {});
at::Tensor MatMul(const at::Tensor& a, const at::Tensor& b);

// RmsNormalize(x) * (1 + weight), rounded once. weight: fp32 [D].
at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight);

// Over the last dimension, biased variance, epsilon 1e-6, rounded once
// (docs/pi0.md 2.3). weight, bias: [D] of x's dtype.
at::Tensor LayerNorm(const at::Tensor& x, const at::Tensor& weight,
                     const at::Tensor& bias);

// GELU in its tanh form, rounded once (docs/pi0.md 2.3, 2.6).
at::Tensor GeluTanh(const at::Tensor& x);

// [B, S, heads * C] -> [B, heads, S, C] and back.
at::Tensor SplitHeads(const at::Tensor& x, int heads);
at::Tensor MergeHeads(const at::Tensor& x);

// Attention of both Gemmas: scores rounded twice, softmax in fp32,
// probabilities rounded.
//
//   q     [B, N, Q, C]
//   k, v  [B, K, S, C]; query head h reads head h / (N / K)
//   mask  fp32 [B, 1, Q, S], added to the scores; undefined: nothing is masked
//
// Source: openpi transformers_replace modeling_gemma.py,
// eager_attention_forward (docs/pi0.md 2.8).
at::Tensor EagerAttention(const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& mask);

// Attention of SigLIP, rounded as torch's flash kernels round: scores stay
// fp32, exp(s - max) is rounded before it is normalised, the sum is of the
// unrounded ones. q, k, v: [B, N, S, C].
// Source: torch scaled_dot_product_attention, flash backend (docs/pi0.md 2.3).
at::Tensor FlashAttention(const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v);

// The core's features of flow time t as a tensor: fp32 [1, width].
at::Tensor TimeEmbedding(float t, int width, at::Device device);

}  // namespace piserve::reference
