// SPDX-License-Identifier: Apache-2.0
#include <cooperative_groups.h>

#include "model/kernels/euler_step.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kCluster = 4;
constexpr int kMaxDim = 32;
constexpr int kMaxWidth = 1024;
constexpr int kManyRows = 128;  // from here on a cluster takes more tokens
constexpr int kManyTokens = 8;  // a pass
constexpr int kClusters = 66;   // that are resident at once

// A CTA's quarter of the next input: kRuns float4 columns, the sum over the
// action dimensions shared by kParts threads each.
constexpr int kRuns = kMaxWidth / 4 / kCluster;
constexpr int kParts = kThreads / kRuns;
constexpr int kPartDims = kMaxDim / kParts;
// One output of v a warp; its weights a lane.
constexpr int kOutRuns = kMaxWidth / 128;

__device__ int Rank() {
  return static_cast<int>(cooperative_groups::this_cluster().block_rank());
}

// What a thread multiplies with, from first to last.
struct Weights {
  float4 out[kOutRuns];
  float4 in[kPartDims];
};

__device__ int OutputOf(const EulerStepArgs& a) {
  return Rank() * (a.dim / kCluster) + threadIdx.x / 32;
}
__device__ bool HasOutput(const EulerStepArgs& a) {
  return threadIdx.x / 32 < a.dim / kCluster;
}
__device__ int ColumnOf(const EulerStepArgs& a, int run) {
  const int quarter = (a.in_width / 4 + kCluster - 1) / kCluster;
  return run < quarter ? (Rank() * quarter + run) * 4 : a.in_width;
}

__device__ void LoadWeights(const EulerStepArgs& a, Weights& w) {
  const float* out = a.out_weight + static_cast<long>(OutputOf(a)) * a.width;
#pragma unroll
  for (int i = 0; i < kOutRuns; ++i) {
    const int at = i * 128 + threadIdx.x % 32 * 4;
    w.out[i] = HasOutput(a) && at < a.width
                   ? *reinterpret_cast<const float4*>(out + at)
                   : float4{0, 0, 0, 0};
  }
  const int column = ColumnOf(a, threadIdx.x % kRuns);
#pragma unroll
  for (int i = 0; i < kPartDims; ++i) {
    const int d = threadIdx.x / kRuns * kPartDims + i;
    w.in[i] =
        column < a.in_width && d < a.dim
            ? *reinterpret_cast<const float4*>(
                  a.in_weight + static_cast<long>(d) * a.in_width + column)
            : float4{0, 0, 0, 0};
  }
}

template <int kTokens>
__device__ void LoadHidden(const EulerStepArgs& a, int first, float* hidden) {
  for (int i = threadIdx.x * 8; i < kTokens * a.width; i += kThreads * 8) {
    const int token = first + i / a.width;
    float h[8] = {};
    if (token < a.rows) {
      Load8(a.hidden + a.tokens.Index(token) * a.width + i % a.width, h);
    }
#pragma unroll
    for (int k = 0; k < 8; ++k) hidden[i + k] = h[k];
  }
}

__device__ float Dot(const EulerStepArgs& a, const Weights& w,
                     const float* hidden) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kOutRuns; ++i) {
    const int at = i * 128 + threadIdx.x % 32 * 4;
    if (at >= a.width) break;
    const float4 h = *reinterpret_cast<const float4*>(hidden + at);
    sum += w.out[i].x * h.x + w.out[i].y * h.y + w.out[i].z * h.z +
           w.out[i].w * h.w;
  }
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  }
  return sum;
}

// This CTA's quarter of the outputs: x moves on, in memory and in the `moved`
// of every CTA of the cluster. A lane finishes one token.
template <int kTokens>
__device__ void Advance(const EulerStepArgs& a, const Weights& w, float dt,
                        int first, const float* hidden,
                        float (*moved)[kMaxDim]) {
  if (!HasOutput(a)) return;
  auto cluster = cooperative_groups::this_cluster();
  const int lane = threadIdx.x % 32;
  const int d = OutputOf(a);
  const bool mine = lane < kTokens && first + lane < a.rows;
  const long at = static_cast<long>(first + lane) * a.dim + d;
  const float before = mine ? a.x[at] : 0;
  const float bias = a.out_bias[d];
  float v = 0;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    const float sum = Dot(a, w, hidden + t * a.width);
    if (lane == t) v = sum + bias;
  }
  if (!mine) return;
  const float x = __fadd_rn(before, __fmul_rn(dt, v));
#pragma unroll
  for (int rank = 0; rank < kCluster; ++rank) {
    *cluster.map_shared_rank(&moved[lane][d], rank) = x;
  }
  a.x[at] = x;
  if (a.velocity != nullptr) a.velocity[at] = v;
}

__device__ float Activate(Activation activation, float x) {
  return activation == Activation::kSilu ? x / (1 + expf(-x)) : x;
}

__device__ void Add(float4& sum, const float4& add) {
  sum.x += add.x;
  sum.y += add.y;
  sum.z += add.z;
  sum.w += add.w;
}

// This thread's part of the sums over the action dimensions.
template <int kTokens>
__device__ void Project(const Weights& w, const float (*moved)[kMaxDim],
                        int dim, float4 (*parts)[kTokens][kRuns]) {
  const int part = threadIdx.x / kRuns;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    float4 sum = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kPartDims; ++i) {
      const int d = part * kPartDims + i;
      const float x = d < dim ? moved[t][d] : 0;
      Add(sum, {w.in[i].x * x, w.in[i].y * x, w.in[i].z * x, w.in[i].w * x});
    }
    parts[part][t][threadIdx.x % kRuns] = sum;
  }
}

template <int kTokens>
__device__ void StoreInput(const EulerStepArgs& a, int first,
                           const float4 (*parts)[kTokens][kRuns]) {
  const float* offset = a.in_offset.Row();
  for (int i = threadIdx.x; i < kTokens * kRuns; i += kThreads) {
    const int t = i / kRuns, run = i % kRuns;
    const int column = ColumnOf(a, run);
    if (column >= a.in_width || first + t >= a.rows) continue;
    float4 sum = parts[0][t][run];
#pragma unroll
    for (int part = 1; part < kParts; ++part) Add(sum, parts[part][t][run]);
    Add(sum, *reinterpret_cast<const float4*>(offset + column));
    __nv_bfloat162 z[2] = {
        __floats2bfloat162_rn(Activate(a.activation, sum.x),
                              Activate(a.activation, sum.y)),
        __floats2bfloat162_rn(Activate(a.activation, sum.z),
                              Activate(a.activation, sum.w))};
    *reinterpret_cast<uint2*>(a.z + a.z_tokens.Index(first + t) * a.in_width +
                              column) = *reinterpret_cast<uint2*>(z);
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kThreads) EulerStepKernel(EulerStepArgs a) {
  extern __shared__ __align__(16) float hidden[];  // [kTokens, width]
  __shared__ float moved[kTokens][kMaxDim];
  __shared__ float4 parts[kParts][kTokens][kRuns];
  Weights w;
  LoadWeights(a, w);
  LetNextStart();
  WaitForPrevious();
  const float dt = *a.dt.Row();
  const int stride = static_cast<int>(gridDim.x) / kCluster * kTokens;
  for (int first = blockIdx.x / kCluster * kTokens; first < a.rows;
       first += stride) {
    LoadHidden<kTokens>(a, first, hidden);
    // No CTA writes into another that does not run yet or still reads.
    ClusterSync();
    Advance<kTokens>(a, w, dt, first, hidden, moved);
    ClusterSync();
    Project<kTokens>(w, moved, a.dim, parts);
    __syncthreads();
    StoreInput<kTokens>(a, first, parts);
  }
}

template <int kTokens>
cudaError_t LaunchTokens(const EulerStepArgs& a, cudaStream_t stream) {
  const int passes = (a.rows + kTokens - 1) / kTokens;
  LaunchShape shape;
  shape.grid = dim3((kTokens == 1 || passes < kClusters ? passes : kClusters) *
                    kCluster);
  shape.threads = kThreads;
  shape.shared_bytes = kTokens * a.width * sizeof(float);
  shape.cluster = kCluster;
  const auto kernel = EulerStepKernel<kTokens>;
  // Beyond 48 KB together with the static part.
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
      kTokens * kMaxWidth * static_cast<int>(sizeof(float)));
  if (error != cudaSuccess) return error;
  return Launch(kernel, shape, stream, a);
}

}  // namespace

cudaError_t LaunchEulerStep(const EulerStepArgs& args, cudaStream_t stream) {
  if (args.width % 8 != 0 || args.width > kMaxWidth ||
      args.dim % kCluster != 0 || args.dim > kMaxDim ||
      args.in_width % 4 != 0 || args.in_width > kMaxWidth || args.rows < 1) {
    return cudaErrorInvalidValue;
  }
  return args.rows < kManyRows ? LaunchTokens<1>(args, stream)
                               : LaunchTokens<kManyTokens>(args, stream);
}

}  // namespace piserve::kernels
