// SPDX-License-Identifier: Apache-2.0
#include "model/reference/ops.h"

#include <ATen/ops/add.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/div.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <optional>

#include "model/flow.h"

namespace piserve::reference {
namespace {

constexpr double kEpsilon = 1e-6;  // of RMSNorm and LayerNorm alike

double ScaleOf(const at::Tensor& q) {
  return 1.0 / std::sqrt(static_cast<double>(q.size(-1)));
}

}  // namespace

at::Tensor RmsNormalize(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor mean_square =
      at::mean(at::mul(wide, wide), /*dim=*/-1, /*keepdim=*/true);
  return at::mul(wide, at::rsqrt(at::add(mean_square, kEpsilon)));
}

at::Tensor LinearOf(const at::Tensor& x, const at::Tensor& weight,
                    const at::Tensor& bias) {
  return at::linear(
             x.to(at::kFloat), weight.to(at::kFloat),
             bias.defined() ? std::optional(bias.to(at::kFloat)) : std::nullopt)
      .to(x.scalar_type());
}

at::Tensor MatMul(const at::Tensor& a, const at::Tensor& b) {
  return at::matmul(a.to(at::kFloat), b.to(at::kFloat)).to(a.scalar_type());
}

at::Tensor RmsNorm(const at::Tensor& x, const at::Tensor& weight) {
  return at::mul(RmsNormalize(x), at::add(weight, 1.0)).to(x.scalar_type());
}

at::Tensor LayerNorm(const at::Tensor& x, const at::Tensor& weight,
                     const at::Tensor& bias) {
  return at::layer_norm(x, {x.size(-1)}, weight, bias, kEpsilon);
}

at::Tensor GeluTanh(const at::Tensor& x) { return at::gelu(x, "tanh"); }

at::Tensor SplitHeads(const at::Tensor& x, int heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads})
      .transpose(1, 2);
}

at::Tensor MergeHeads(const at::Tensor& x) {
  return x.transpose(1, 2).reshape(
      {x.size(0), x.size(2), x.size(1) * x.size(3)});
}

at::Tensor EagerAttention(const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v, const at::Tensor& mask) {
  const auto batch = q.size(0), heads = q.size(1), queries = q.size(2);
  const auto kv_heads = k.size(1), keys = k.size(2);
  // The query heads of one KV head follow each other: fold them into rows.
  const auto rows = heads / kv_heads * queries;
  const at::Tensor folded = q.reshape({batch, kv_heads, rows, q.size(3)});
  at::Tensor scores = MatMul(folded, k.transpose(-2, -1));
  scores = at::mul(scores, ScaleOf(q));
  scores = scores.to(at::kFloat).view({batch, heads, queries, keys});
  if (mask.defined()) scores = at::add(scores, mask);
  const at::Tensor probabilities =
      at::softmax(scores, /*dim=*/-1).to(q.scalar_type());
  return MatMul(probabilities.view({batch, kv_heads, rows, keys}), v)
      .view({batch, heads, queries, v.size(3)});
}

at::Tensor FlashAttention(const at::Tensor& q, const at::Tensor& k,
                          const at::Tensor& v) {
  const at::Tensor scores =
      at::mul(at::matmul(q.to(at::kFloat), k.to(at::kFloat).transpose(-2, -1)),
              ScaleOf(q));
  const at::Tensor exponentials =
      at::exp(at::sub(scores, at::amax(scores, /*dim=*/-1, /*keepdim=*/true)));
  const at::Tensor rounded = exponentials.to(q.scalar_type()).to(at::kFloat);
  const at::Tensor weighted = at::matmul(rounded, v.to(at::kFloat));
  const at::Tensor total = at::sum(exponentials, /*dim=*/-1, /*keepdim=*/true);
  return at::div(weighted, total).to(q.scalar_type());
}

at::Tensor TimeEmbedding(float t, int width, at::Device device) {
  return at::tensor(piserve::TimeEmbedding(t, width)).to(device).unsqueeze(0);
}

}  // namespace piserve::reference
