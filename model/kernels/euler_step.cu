// SPDX-License-Identifier: Apache-2.0
#include <cooperative_groups.h>

#include "model/kernels/euler_step.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kCluster = 4;
constexpr int kMaxDim = 32;
constexpr int kTallTokens = 4;  // a cluster's, where rows abound
constexpr int kTallRows = 512;  // from here on

// One warp: hidden . weight for kTokens tokens, the sum in every lane.
template <int kTokens>
__device__ void Dot(const float* hidden, const float* weight, int width,
                    float (&sum)[kTokens]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 8
  for (int i = lane * 4; i < width; i += 128) {
    const float4 w = *reinterpret_cast<const float4*>(weight + i);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      const float4 h = *reinterpret_cast<const float4*>(hidden + t * width + i);
      sum[t] += w.x * h.x + w.y * h.y + w.z * h.z + w.w * h.w;
    }
  }
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      sum[t] += __shfl_xor_sync(0xffffffffu, sum[t], offset);
    }
  }
}

__device__ float Activate(Activation activation, float x) {
  return activation == Activation::kSilu ? x / (1 + expf(-x)) : x;
}

// This CTA's quarter of the outputs: x moves on, in memory and in the `moved`
// of every CTA of the cluster.
template <int kTokens>
__device__ void Advance(const EulerStepArgs& a, int first, const float* hidden,
                        float (*moved)[kMaxDim]) {
  auto cluster = cooperative_groups::this_cluster();
  const int quarter = a.dim / kCluster;
  const int rank = static_cast<int>(cluster.block_rank());
  const int lane = threadIdx.x % 32;
  const float dt = *a.dt.Row();
  for (int i = threadIdx.x / 32; i < quarter; i += kWarps) {
    const int d = rank * quarter + i;
    float sum[kTokens] = {};
    Dot<kTokens>(hidden, a.out_weight + static_cast<long>(d) * a.width, a.width,
                 sum);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first + t >= a.rows) break;
      const long at = static_cast<long>(first + t) * a.dim + d;
      const float v = sum[t] + a.out_bias[d];
      const float x = __fadd_rn(a.x[at], __fmul_rn(dt, v));
      __syncwarp();  // all lanes have read x
      if (lane < kCluster) *cluster.map_shared_rank(&moved[t][d], lane) = x;
      if (lane != 0) continue;
      a.x[at] = x;
      if (a.velocity != nullptr) a.velocity[at] = v;
    }
  }
}

// This CTA's quarter of the next step's input, four columns a thread.
template <int kTokens>
__device__ void Project(const EulerStepArgs& a, int first,
                        const float (*moved)[kMaxDim]) {
  const int runs = a.in_width / 4;
  const int quarter = (runs + kCluster - 1) / kCluster;
  const int rank =
      static_cast<int>(cooperative_groups::this_cluster().block_rank());
  const int end = min(runs, (rank + 1) * quarter);
  const float* offset = a.in_offset.Row();
  for (int run = rank * quarter + threadIdx.x; run < end; run += kThreads) {
    const int column = run * 4;
    float4 sum[kTokens] = {};
#pragma unroll 8
    for (int d = 0; d < a.dim; ++d) {
      const float4 w = *reinterpret_cast<const float4*>(
          a.in_weight + static_cast<long>(d) * a.in_width + column);
#pragma unroll
      for (int t = 0; t < kTokens; ++t) {
        const float x = moved[t][d];
        sum[t].x += w.x * x;
        sum[t].y += w.y * x;
        sum[t].z += w.z * x;
        sum[t].w += w.w * x;
      }
    }
    const float4 add = *reinterpret_cast<const float4*>(offset + column);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first + t >= a.rows) continue;
      __nv_bfloat162 z[2] = {
          __floats2bfloat162_rn(Activate(a.activation, sum[t].x + add.x),
                                Activate(a.activation, sum[t].y + add.y)),
          __floats2bfloat162_rn(Activate(a.activation, sum[t].z + add.z),
                                Activate(a.activation, sum[t].w + add.w))};
      *reinterpret_cast<uint2*>(a.z + a.z_tokens.Index(first + t) * a.in_width +
                                column) = *reinterpret_cast<uint2*>(z);
    }
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kThreads) EulerStepKernel(EulerStepArgs a) {
  extern __shared__ __align__(16) float hidden[];  // [kTokens, width]
  __shared__ float moved[kTokens][kMaxDim];
  LetNextStart();
  WaitForPrevious();
  const int first = blockIdx.x / kCluster * kTokens;
  for (int i = threadIdx.x * 8; i < kTokens * a.width; i += kThreads * 8) {
    float h[8] = {};
    if (first + i / a.width < a.rows) {
      Load8(a.hidden + a.tokens.Index(first + i / a.width) * a.width +
                i % a.width,
            h);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) hidden[i + k] = h[k];
  }
  // No CTA writes into another before that one runs.
  ClusterSync();
  Advance<kTokens>(a, first, hidden, moved);
  ClusterSync();
  Project<kTokens>(a, first, moved);
}

template <int kTokens>
cudaError_t LaunchTokens(const EulerStepArgs& a, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3((a.rows + kTokens - 1) / kTokens * kCluster);
  shape.threads = kThreads;
  shape.shared_bytes = kTokens * a.width * sizeof(float);
  shape.cluster = kCluster;
  return Launch(EulerStepKernel<kTokens>, shape, stream, a);
}

}  // namespace

cudaError_t LaunchEulerStep(const EulerStepArgs& args, cudaStream_t stream) {
  if (args.width % 8 != 0 || args.width > 2048 || args.dim % kCluster != 0 ||
      args.dim > kMaxDim || args.in_width % 4 != 0 || args.rows < 1) {
    return cudaErrorInvalidValue;
  }
  return args.rows < kTallRows ? LaunchTokens<1>(args, stream)
                               : LaunchTokens<kTallTokens>(args, stream);
}

}  // namespace piserve::kernels
