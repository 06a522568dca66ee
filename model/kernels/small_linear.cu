// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/suffix.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kLinearThreads = 128;
constexpr int kLinearWarps = kLinearThreads / 32;
constexpr int kMaxTile = 128;  // tokens of a block
constexpr int kOneBlock = 64;  // up to so many tokens one block a processor

__device__ void LoadRun(const float* p, float (&to)[4]) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
}
__device__ void LoadRun(const float* p, float (&to)[2]) {
  const float2 v = *reinterpret_cast<const float2*>(p);
  to[0] = v.x, to[1] = v.y;
}

__device__ void StoreRun(__nv_bfloat16* p, const float (&from)[4]) {
  *reinterpret_cast<uint2*>(p) = {PackPair(from[0], from[1]),
                                  PackPair(from[2], from[3])};
}
__device__ void StoreRun(__nv_bfloat16* p, const float (&from)[2]) {
  *reinterpret_cast<unsigned*>(p) = PackPair(from[0], from[1]);
}

// Copies a number, or writes zero and reads nothing.
__device__ void CopyAsync4(float* to, const float* from, bool valid) {
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(SharedAddress(to)),
      "l"(from), "r"(valid ? 4 : 0)
      : "memory");
}

// Zeros past `in` and past `out`.
template <int kIn, int kColumns>
__device__ void LoadColumns(const SmallLinearArgs& a, int column,
                            float (&weight)[kIn][kColumns]) {
#pragma unroll
  for (int k = 0; k < kIn; ++k) {
#pragma unroll
    for (float& w : weight[k]) w = 0;
    if (k < a.in && column < a.out) {
      LoadRun(a.weight + static_cast<long>(k) * a.out + column, weight[k]);
    }
  }
}

// Starts copying `count` tokens from `first` on, zeros past `in`.
template <int kIn>
__device__ void FetchTokens(const SmallLinearArgs& a, int first, int count,
                            float (*x)[kIn]) {
  for (int i = threadIdx.x; i < count * kIn; i += kLinearThreads) {
    const int t = i / kIn, k = i % kIn;
    const bool valid = k < a.in;
    const long at = static_cast<long>(first + t) * a.in + k;
    CopyAsync4(&x[t][k], valid ? a.x + at : a.x, valid);
  }
  CopyAsyncCommit();
}

// From the first input to the last, whatever the token.
template <int kIn, int kColumns>
__device__ void Project(const float (&weight)[kIn][kColumns], const float* x,
                        float (&sum)[kColumns]) {
#pragma unroll
  for (float& s : sum) s = 0;
#pragma unroll
  for (int k = 0; k < kIn; k += 4) {
    float v[4];
    LoadRun(x + k, v);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        sum[c] = fmaf(weight[k + i][c], v[i], sum[c]);
      }
    }
  }
}

// Good to 2^-17, and zero where it is smaller than 1e-36.
__device__ float Silu(float x) { return __fdividef(x, 1 + __expf(-x)); }

// A lane owns kColumns columns, a block's warps the same; they share the
// block's tokens.
template <int kIn, int kColumns>
__global__ void __launch_bounds__(kLinearThreads, 3)
    SmallLinearKernel(SmallLinearArgs a, int tile) {
  __shared__ __align__(16) float x[kMaxTile][kIn];
  __shared__ long place[kMaxTile];  // of a token's first column in y
  LetNextStart();
  const int first = blockIdx.y * tile;
  const int count = min(tile, a.rows - first);
  const int thread = threadIdx.x;
  const int column = (blockIdx.x * 32 + thread % 32) * kColumns;
  float weight[kIn][kColumns];
  LoadColumns(a, column, weight);
  if (thread < count) place[thread] = a.tokens.Index(first + thread) * a.out;
  WaitForPrevious();
  FetchTokens<kIn>(a, first, count, x);
  float bias[kColumns] = {};
  if (column < a.out) LoadRun(a.bias.Row() + column, bias);
  CopyAsyncWait<0>();
  __syncthreads();
  if (column >= a.out) return;
#pragma unroll 2
  for (int t = thread / 32; t < count; t += kLinearWarps) {
    float sum[kColumns];
    Project(weight, x[t], sum);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) sum[c] += bias[c];
    if (a.activation == Activation::kSilu) {
#pragma unroll
      for (float& s : sum) s = Silu(s);
    }
    StoreRun(a.y + place[t] + column, sum);
  }
}

template <int kIn, int kColumns>
cudaError_t LaunchLinear(const SmallLinearArgs& a, cudaStream_t stream) {
  const int blocks = CeilDiv(a.out, 32 * kColumns);
  int tile = CeilDiv(a.rows * blocks, kTargetProcessors);
  if (tile > kOneBlock) tile = CeilDiv(tile, 2);
  tile = std::min(CeilDiv(tile, kLinearWarps) * kLinearWarps, kMaxTile);
  LaunchShape shape;
  shape.grid = dim3(blocks, CeilDiv(a.rows, tile));
  shape.threads = kLinearThreads;
  return Launch(SmallLinearKernel<kIn, kColumns>, shape, stream, a, tile);
}

}  // namespace

cudaError_t LaunchSmallLinear(const SmallLinearArgs& args,
                              cudaStream_t stream) {
  if (args.in > 64 || args.out % 4 != 0 || args.rows < 1) {
    return cudaErrorInvalidValue;
  }
  return args.in <= 32 ? LaunchLinear<32, 4>(args, stream)
                       : LaunchLinear<64, 2>(args, stream);
}

}  // namespace piserve::kernels
