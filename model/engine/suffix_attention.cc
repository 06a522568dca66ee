// SPDX-License-Identifier: Apache-2.0
#include "model/engine/suffix_attention.h"

#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>

#include <cmath>

#include "model/engine/buffers.h"

namespace piserve::engine {
namespace {

using Bf16 = __nv_bfloat16;

int QkvWidth(const GemmaSize& size) {
  return (size.heads + 2 * size.kv_heads) * size.head_dim;
}

cudaError_t Launch(const SuffixAttention& a, cudaStream_t stream) {
  return kernels::LaunchSuffixAttention(
      {.q = Data<Bf16>(a.qkv),
       .token_stride = QkvWidth(a.size),
       .cache_k = Data<Bf16>(a.keys),
       .cache_v = Data<Bf16>(a.values),
       .start = Data<int>(a.prefix_len),
       .out = Data<Bf16>(a.out),
       .rows = a.rows,
       .tokens = a.tokens,
       .heads = a.size.heads,
       .head_dim = a.size.head_dim,
       .cache_len = static_cast<int>(a.keys.size(1)),
       .key_extra = a.suffix_keys,
       .first_token = a.first_token},
      stream);
}

at::Tensor Steps(std::int64_t count, std::int64_t step) {
  return at::arange(0, count * step, step,
                    at::TensorOptions(at::kInt).device(at::kCUDA));
}

// q: [rows * tokens, heads, head_dim]; every token sees `extra` keys after the
// prefix.
at::Tensor Flash(const SuffixAttention& a, const at::Tensor& q, int tokens,
                 int extra) {
  const auto cache_len = a.keys.size(1);
  return std::get<0>(at::_flash_attention_forward(
      q, a.keys.flatten(0, 1), a.values.flatten(0, 1),
      Steps(a.rows + 1, tokens), Steps(a.rows + 1, cache_len), tokens,
      cache_len, /*dropout_p=*/0, /*is_causal=*/false,
      /*return_debug_mask=*/false,
      /*scale=*/1 / std::sqrt(static_cast<double>(a.size.head_dim)),
      /*window_size_left=*/std::nullopt, /*window_size_right=*/std::nullopt,
      /*seqused_k=*/
      at::add(a.prefix_len.narrow(0, 0, a.rows), extra)));
}

void RunLibrary(const SuffixAttention& a) {
  const std::int64_t total = std::int64_t{a.rows} * a.tokens;
  const at::Tensor q =
      a.qkv.narrow(0, 0, total)
          .view({total, a.size.heads + 2 * a.size.kv_heads, a.size.head_dim})
          .narrow(1, 0, a.size.heads);
  const at::Tensor out =
      a.out.narrow(0, 0, total).view({total, a.size.heads, a.size.head_dim});
  out.copy_(Flash(a, q, a.tokens, a.suffix_keys));
  if (a.first_token == kernels::FirstToken::kSeesAll) return;
  const auto first = [&](const at::Tensor& t) {
    return t.unflatten(0, {a.rows, a.tokens}).select(1, 0);
  };
  first(out).copy_(Flash(a, first(q), /*tokens=*/1, /*extra=*/1));
}

}  // namespace

void EnqueueSuffixAttention(const SuffixAttention& a,
                            const Optimisations& optimisations,
                            Launcher& launcher) {
  if (optimisations.own_attention &&
      kernels::SuffixAttentionSupports(a.size.head_dim, a.size.kv_heads)) {
    launcher.Run("suffix attention",
                 [&](cudaStream_t stream) { return Launch(a, stream); });
  } else if (launcher.ok()) {
    RunLibrary(a);
  }
}

}  // namespace piserve::engine
