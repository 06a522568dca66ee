// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/gelu.cuh"
#include "model/kernels/launch.cuh"
#include "model/kernels/prefix.h"
#include "model/kernels/processors.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kRopeThreads = 128;
constexpr int kRopeBlocks = 7;  // a processor: 896 for 64 rows of 50 tokens
// Heads a thread of RoPE takes: more share a read of the table, fewer make more
// blocks. Both divide 8 + 2 heads.
constexpr int kFewHeads = 2;
constexpr int kManyHeads = 5;
constexpr int kBlocksForManyHeads = 4;  // a processor

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

// kRun neighbouring columns: as they move, as they are computed with, and their
// (cos, sin).
template <int kRun>
struct Run;
template <>
struct Run<8> {
  using Packed = Bf16x8;
  static __device__ void Widen(const Packed& v, float (&out)[8]) {
    Unpack(v, out);
  }
  static __device__ Packed Round(const float (&in)[8]) { return Pack(in); }
  static __device__ void LoadTable(const float2* p, float2 (&out)[8]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float4 two = reinterpret_cast<const float4*>(p)[i];
      out[2 * i] = {two.x, two.y};
      out[2 * i + 1] = {two.z, two.w};
    }
  }
};
template <>
struct Run<1> {
  using Packed = __nv_bfloat16;
  static __device__ void Widen(Packed v, float (&out)[1]) {
    out[0] = __bfloat162float(v);
  }
  static __device__ Packed Round(const float (&in)[1]) {
    return __float2bfloat16_rn(in[0]);
  }
  static __device__ void LoadTable(const float2* p, float2 (&out)[1]) {
    out[0] = *p;
  }
};

// Fused as written, whatever surrounds it, so that every kernel's bits agree.
template <int kRun>
__device__ void Rotate(const float2 (&cos_sin)[kRun],
                       typename Run<kRun>::Packed& first,
                       typename Run<kRun>::Packed& second) {
  float x1[kRun], x2[kRun];
  Run<kRun>::Widen(first, x1);
  Run<kRun>::Widen(second, x2);
#pragma unroll
  for (int i = 0; i < kRun; ++i) {
    const float2 cs = cos_sin[i];
    const float x = x1[i];
    x1[i] = __fmaf_rn(x, cs.x, -__fmul_rn(x2[i], cs.y));
    x2[i] = __fmaf_rn(x, cs.y, __fmul_rn(x2[i], cs.x));
  }
  first = Run<kRun>::Round(x1);
  second = Run<kRun>::Round(x2);
}

template <int kRun>
__device__ void Scale(float factor, typename Run<kRun>::Packed& packed) {
  float x[kRun];
  Run<kRun>::Widen(packed, x);
#pragma unroll
  for (float& v : x) v *= factor;
  packed = Run<kRun>::Round(x);
}

__device__ float NormFactor(const RopeScatterArgs& a, long token) {
  const long tokens = static_cast<long>(a.rows) * a.seq;
  float sum = 0;
  for (int i = 0; i < a.parts; ++i) sum += a.squares[i * tokens + token];
  return rsqrtf(sum / a.width + 1e-6f);
}

// A token's heads: q's, which stay in their place, and where k and v go.
struct Places {
  __device__ Places(const RopeScatterArgs& a, __nv_bfloat16* token,
                    long cache_token, int d)
      : q(token),
        k(a.cache_k + cache_token * a.kv_heads * a.head_dim + d),
        v(a.cache_v + cache_token * a.kv_heads * a.head_dim + d) {}

  __device__ __nv_bfloat16* Of(const RopeScatterArgs& a, int head) const {
    const int rotated = a.heads + a.kv_heads;
    if (head < a.heads) return q + head * a.head_dim;
    if (head < rotated) return k + (head - a.heads) * a.head_dim;
    return v + (head - rotated) * a.head_dim;
  }

  __nv_bfloat16 *q, *k, *v;
};

// One thread rotates (or copies) kRun pairs (d, d + head_dim / 2) of kHeads
// heads of a token, which share their cosines and sines. blockIdx: runs of a
// row's tokens, groups of heads, rows.
template <int kRun, int kHeads>
__global__ void __launch_bounds__(kRopeThreads, kRopeBlocks)
    RopeScatterKernel(RopeScatterArgs a) {
  const int half = a.head_dim / 2;
  const unsigned runs = half / kRun;
  const unsigned item = blockIdx.x * kRopeThreads + threadIdx.x;
  const int token = static_cast<int>(item / runs);
  const int d = static_cast<int>(item % runs) * kRun;
  const int row = static_cast<int>(blockIdx.z);
  const int all_heads = a.heads + 2 * a.kv_heads;
  const int first = static_cast<int>(blockIdx.y) * kHeads;
  __nv_bfloat16* x =
      a.qkv +
      (static_cast<long>(row) * a.seq + token) * all_heads * a.head_dim + d;
  LetNextStart();
  WaitForPrevious();
  if (token >= a.seq) return;

  const int start = a.start == nullptr ? 0 : a.start[row];
  const int base = a.row_base == nullptr ? 0 : *a.row_base;
  using Packed = typename Run<kRun>::Packed;
  Packed x1[kHeads], x2[kHeads];
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    if (first + h >= all_heads) continue;
    const __nv_bfloat16* from = x + (first + h) * a.head_dim;
    x1[h] = *reinterpret_cast<const Packed*>(from);
    x2[h] = *reinterpret_cast<const Packed*>(from + half);
  }
  const int position = start + a.start_offset + token;
  float2 cos_sin[kRun];
  Run<kRun>::LoadTable(a.table + static_cast<long>(position) * half + d,
                       cos_sin);
  const bool scaled = a.squares != nullptr;
  float factor = 1;
  if (scaled) {
    factor = NormFactor(a, static_cast<long>(row) * a.seq + token);
#pragma unroll
    for (float2& cs : cos_sin) cs = {cs.x * factor, cs.y * factor};
  }
  const Places places(
      a, x, (static_cast<long>(base) + row) * a.cache_len + position, d);
#pragma unroll
  for (int h = 0; h < kHeads; ++h) {
    const int head = first + h;
    if (head >= all_heads) continue;
    if (head < a.heads + a.kv_heads) {
      Rotate<kRun>(cos_sin, x1[h], x2[h]);
    } else if (scaled) {
      Scale<kRun>(factor, x1[h]);
      Scale<kRun>(factor, x2[h]);
    }
    __nv_bfloat16* to = places.Of(a, head);
    *reinterpret_cast<Packed*>(to) = x1[h];
    *reinterpret_cast<Packed*>(to + half) = x2[h];
  }
}

template <int kRun, int kHeads>
dim3 RopeGrid(const RopeScatterArgs& a) {
  const long runs = static_cast<long>(a.seq) * (a.head_dim / 2 / kRun);
  return dim3(static_cast<unsigned>((runs + kRopeThreads - 1) / kRopeThreads),
              (a.heads + 2 * a.kv_heads + kHeads - 1) / kHeads, a.rows);
}

template <int kRun, int kHeads>
cudaError_t LaunchRope(const RopeScatterArgs& a, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = RopeGrid<kRun, kHeads>(a);
  shape.threads = kRopeThreads;
  return Launch(RopeScatterKernel<kRun, kHeads>, shape, stream, a);
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
  if (args.head_dim % 16 != 0) return LaunchRope<1, kFewHeads>(args, stream);
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  const dim3 grid = RopeGrid<8, kManyHeads>(args);
  const long blocks = static_cast<long>(grid.x) * grid.y * grid.z;
  const bool many = args.heads + 2 * args.kv_heads >= kManyHeads &&
                    blocks >= long{kBlocksForManyHeads} * processors;
  return many ? LaunchRope<8, kManyHeads>(args, stream)
              : LaunchRope<8, kFewHeads>(args, stream);
}

cudaError_t LaunchGeglu(const __nv_bfloat16* gate_up, __nv_bfloat16* out,
                        int rows, int width, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(rows) * width;
  return Launch(GegluKernel, Over(total / 8), stream, gate_up, out, total,
                width);
}

}  // namespace piserve::kernels
