// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/prefix.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;

unsigned Blocks(long items) {
  return static_cast<unsigned>((items + kThreads - 1) / kThreads);
}

__device__ long Item() {
  return static_cast<long>(blockIdx.x) * kThreads + threadIdx.x;
}

// One thread moves eight columns of one prefix position.
__global__ void __launch_bounds__(kThreads)
    EmbedPrefixKernel(EmbedPrefixArgs a) {
  const int runs = a.width / 8;
  const long item = Item();
  if (item >= static_cast<long>(a.rows) * a.capacity * runs) return;
  const int column = static_cast<int>(item % runs) * 8;
  const int position = static_cast<int>(item / runs % a.capacity);
  const int row = static_cast<int>(item / runs / a.capacity);
  float value[8] = {};
  if (position < a.image_len[row]) {
    Load8(a.image_tokens +
              (static_cast<long>(row) * a.slot_tokens + position) * a.width +
              column,
          value);
  } else if (position < a.prefix_len[row]) {
    const int index = position - a.image_len[row];
    const int token =
        a.tokens[static_cast<long>(*a.row_base + row) * a.max_tokens + index];
    if (token >= 0 && token < a.vocab) {
      Load8(a.embedding + static_cast<long>(token) * a.width + column, value);
#pragma unroll
      for (float& v : value) v *= a.scale;
    }
  }
  Store8(a.out + item * 8, value);
}

// One thread rotates (or copies) one pair of one head of one token.
__global__ void __launch_bounds__(kThreads)
    RopeScatterKernel(RopeScatterArgs a) {
  const int half = a.head_dim / 2;
  const int all_heads = a.heads + 2 * a.kv_heads;
  const long item = Item();
  if (item >= static_cast<long>(a.rows) * a.seq * all_heads * half) return;
  const int d = static_cast<int>(item % half);
  const int head = static_cast<int>(item / half % all_heads);
  const int token = static_cast<int>(item / half / all_heads % a.seq);
  const int row = static_cast<int>(item / half / all_heads / a.seq);
  const int position =
      (a.start == nullptr ? 0 : a.start[row]) + a.start_offset + token;

  __nv_bfloat16* x =
      a.qkv + ((static_cast<long>(row) * a.seq + token) * all_heads + head) *
                  a.head_dim;
  const __nv_bfloat16 x1 = x[d], x2 = x[d + half];
  __nv_bfloat16 y1 = x1, y2 = x2;
  if (head < a.heads + a.kv_heads) {
    const float2 cs = a.table[static_cast<long>(position) * half + d];
    const float f1 = __bfloat162float(x1), f2 = __bfloat162float(x2);
    y1 = __float2bfloat16_rn(f1 * cs.x - f2 * cs.y);
    y2 = __float2bfloat16_rn(f2 * cs.x + f1 * cs.y);
  }
  __nv_bfloat16* to = x;
  const int cache_row = row + (a.row_base == nullptr ? 0 : *a.row_base);
  if (head >= a.heads) {
    const bool is_k = head < a.heads + a.kv_heads;
    const int kv_head = (head - a.heads) % a.kv_heads;
    to = (is_k ? a.cache_k : a.cache_v) +
         ((static_cast<long>(cache_row) * a.cache_len + position) * a.kv_heads +
          kv_head) *
             a.head_dim;
  }
  to[d] = y1;
  to[d + half] = y2;
}

__device__ float GeluTanh(float x) {
  constexpr float kRootTwoOverPi = 0.7978845608028654f;
  return 0.5f * x * (1 + tanhf(kRootTwoOverPi * (x + 0.044715f * x * x * x)));
}

__global__ void __launch_bounds__(kThreads)
    GegluKernel(const __nv_bfloat16* gate_up, __nv_bfloat16* out, long total,
                int width) {
  const long i = Item() * 8;
  if (i >= total) return;
  const long row = i / width;
  float g[8], u[8];
  Load8(gate_up + i + row * width, g);
  Load8(gate_up + i + (row + 1) * width, u);
#pragma unroll
  for (int k = 0; k < 8; ++k) g[k] = GeluTanh(g[k]) * u[k];
  Store8(out + i, g);
}

__global__ void __launch_bounds__(kThreads)
    GatedAddKernel(__nv_bfloat16* x, const __nv_bfloat16* y, StepTable gate,
                   long total, int width) {
  const long i = Item() * 8;
  if (i >= total) return;
  float a[8], b[8], g[8];
  Load8(x + i, a);
  Load8(y + i, b);
  Load8(gate.Row() + i % width, g);
#pragma unroll
  for (int k = 0; k < 8; ++k) a[k] += b[k] * g[k];
  Store8(x + i, a);
}

}  // namespace

cudaError_t LaunchEmbedPrefix(const EmbedPrefixArgs& args,
                              cudaStream_t stream) {
  if (args.width % 8 != 0) return cudaErrorInvalidValue;
  const long items =
      static_cast<long>(args.rows) * args.capacity * (args.width / 8);
  EmbedPrefixKernel<<<Blocks(items), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t LaunchRopeScatter(const RopeScatterArgs& args,
                              cudaStream_t stream) {
  if (args.head_dim % 2 != 0) return cudaErrorInvalidValue;
  const long items = static_cast<long>(args.rows) * args.seq *
                     (args.heads + 2 * args.kv_heads) * (args.head_dim / 2);
  RopeScatterKernel<<<Blocks(items), kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t LaunchGeglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out,
                        int rows, int width, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(rows) * width;
  GegluKernel<<<Blocks(total / 8), kThreads, 0, stream>>>(gate_up, out, total,
                                                          width);
  return cudaGetLastError();
}

cudaError_t LaunchGatedAdd(__nv_bfloat16* x, const __nv_bfloat16* y,
                           StepTable gate, int rows, int width,
                           cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(rows) * width;
  GatedAddKernel<<<Blocks(total / 8), kThreads, 0, stream>>>(x, y, gate, total,
                                                             width);
  return cudaGetLastError();
}

}  // namespace piserve::kernels
