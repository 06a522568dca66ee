// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/launch.cuh"
#include "model/kernels/prefix.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;

LaunchShape Over(long items) {
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>((items + kThreads - 1) / kThreads));
  shape.threads = kThreads;
  return shape;
}

__device__ long Item() {
  return static_cast<long>(blockIdx.x) * kThreads + threadIdx.x;
}

// One thread moves eight columns of one prefix position.
__global__ void __launch_bounds__(kThreads)
    EmbedPrefixKernel(EmbedPrefixArgs a) {
  LetNextStart();
  WaitForPrevious();
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

template <int kRun>
struct Run;
template <>
struct Run<8> {
  __device__ static void Load(const __nv_bfloat16* p, float (&out)[8]) {
    Load8(p, out);
  }
  __device__ static void Store(__nv_bfloat16* p, const float (&in)[8]) {
    Store8(p, in);
  }
};
template <>
struct Run<1> {
  __device__ static void Load(const __nv_bfloat16* p, float (&out)[1]) {
    out[0] = __bfloat162float(*p);
  }
  __device__ static void Store(__nv_bfloat16* p, const float (&in)[1]) {
    *p = __float2bfloat16_rn(in[0]);
  }
};

// Rotates (or copies) kRun pairs (d, d + head_dim / 2) of one head of one token
// a thread.
template <int kRun>
__global__ void __launch_bounds__(kThreads)
    RopeScatterKernel(RopeScatterArgs a) {
  LetNextStart();
  WaitForPrevious();
  const int half = a.head_dim / 2;
  const int runs = half / kRun;
  const int all_heads = a.heads + 2 * a.kv_heads;
  const long item = Item();
  if (item >= static_cast<long>(a.rows) * a.seq * all_heads * runs) return;
  const int d = static_cast<int>(item % runs) * kRun;
  const int head = static_cast<int>(item / runs % all_heads);
  const int token = static_cast<int>(item / runs / all_heads % a.seq);
  const int row = static_cast<int>(item / runs / all_heads / a.seq);
  const int position =
      (a.start == nullptr ? 0 : a.start[row]) + a.start_offset + token;

  __nv_bfloat16* x =
      a.qkv + ((static_cast<long>(row) * a.seq + token) * all_heads + head) *
                  a.head_dim;
  float x1[kRun], x2[kRun];
  Run<kRun>::Load(x + d, x1);
  Run<kRun>::Load(x + d + half, x2);
  if (head < a.heads + a.kv_heads) {
    const float2* table = a.table + static_cast<long>(position) * half + d;
#pragma unroll
    for (int i = 0; i < kRun; ++i) {
      const float2 cs = table[i];
      const float first = x1[i];
      x1[i] = first * cs.x - x2[i] * cs.y;
      x2[i] = x2[i] * cs.x + first * cs.y;
    }
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
  Run<kRun>::Store(to + d, x1);
  Run<kRun>::Store(to + d + half, x2);
}

// 0.5 x (1 + tanh u) = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
__device__ float GeluTanh(float x) {
  constexpr float kTwoRootTwoOverPi = 1.5957691216057308f;
  const float twice = kTwoRootTwoOverPi * (x + 0.044715f * x * x * x);
  return __fdividef(x, 1 + __expf(-twice));
}

__global__ void __launch_bounds__(kThreads)
    GegluKernel(const __nv_bfloat16* gate_up, __nv_bfloat16* out, long total,
                int width) {
  LetNextStart();
  WaitForPrevious();
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

}  // namespace

cudaError_t LaunchEmbedPrefix(const EmbedPrefixArgs& args,
                              cudaStream_t stream) {
  if (args.width % 8 != 0) return cudaErrorInvalidValue;
  const long items =
      static_cast<long>(args.rows) * args.capacity * (args.width / 8);
  return Launch(EmbedPrefixKernel, Over(items), stream, args);
}

cudaError_t LaunchRopeScatter(const RopeScatterArgs& args,
                              cudaStream_t stream) {
  if (args.head_dim % 2 != 0) return cudaErrorInvalidValue;
  const long pairs = static_cast<long>(args.rows) * args.seq *
                     (args.heads + 2 * args.kv_heads) * (args.head_dim / 2);
  return args.head_dim % 16 == 0
             ? Launch(RopeScatterKernel<8>, Over(pairs / 8), stream, args)
             : Launch(RopeScatterKernel<1>, Over(pairs), stream, args);
}

cudaError_t LaunchGeglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out,
                        int rows, int width, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(rows) * width;
  return Launch(GegluKernel, Over(total / 8), stream, gate_up, out, total,
                width);
}

}  // namespace piserve::kernels
