// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/suffix.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kStepThreads = 256;
constexpr int kStepTokens = 4;      // of a pass
constexpr int kSlab = 1024;         // columns of a pass
constexpr int kPacks = kSlab / 8;   // a token's Bf16x8 of them
constexpr int kRuns = kPacks / 32;  // ... of a lane
constexpr int kWarpDims = 4;        // outputs of a warp
constexpr int kDims = kStepThreads / 32 * kWarpDims;  // ... of a block
constexpr int kSums = kStepTokens * kWarpDims;

// A pass of a block: kStepTokens tokens from `token` on, kSlab columns from
// `column` on. A block takes all slabs of every gridDim.x-th group of tokens.
struct Pass {
  int token = static_cast<int>(blockIdx.x) * kStepTokens;
  int column = 0;

  __device__ bool IsLastOfGroup(int width) const {
    return column + kSlab >= width;
  }
  __device__ Pass Next(int width) const {
    Pass next = *this;
    next.column += kSlab;
    if (IsLastOfGroup(width)) {
      next.column = 0;
      next.token += static_cast<int>(gridDim.x) * kStepTokens;
    }
    return next;
  }
};

// A warp's outputs by a lane's columns of a slab.
struct StepWeights {
  float v[kWarpDims][kRuns][8];
};

__device__ int FirstDim() {
  return blockIdx.y * kDims + threadIdx.x / 32 * kWarpDims;
}

// Zeros past `dim` and past `width`.
__device__ void LoadSlab(const ActionStepArgs& a, int first_column,
                         StepWeights& w) {
#pragma unroll
  for (int d = 0; d < kWarpDims; ++d) {
    const int dim = FirstDim() + d;
#pragma unroll
    for (int r = 0; r < kRuns; ++r) {
      const int column = first_column + (r * 32 + threadIdx.x % 32) * 8;
#pragma unroll
      for (float& v : w.v[d][r]) v = 0;
      if (dim < a.dim && column < a.width) {
        Load8(a.weight + static_cast<long>(dim) * a.width + column, w.v[d][r]);
      }
    }
  }
}

// Starts copying what a pass reads, zeros past `rows` and past `width`.
__device__ void FetchHidden(const ActionStepArgs& a, const Pass& pass,
                            Bf16x8* to) {
  const int column = pass.column + threadIdx.x % kPacks * 8;
#pragma unroll
  for (int i = 0; i < kStepTokens * kPacks / kStepThreads; ++i) {
    const int at = i * kStepThreads + threadIdx.x;
    const int token = pass.token + at / kPacks;
    const bool valid = token < a.rows && column < a.width;
    const __nv_bfloat16* from = a.hidden;
    if (valid) from += a.tokens.Index(token) * a.width + column;
    CopyAsync16(to + at, from, valid);
  }
}
static_assert(kStepThreads % kPacks == 0, "a thread copies equal columns");

// Adds a lane's columns, from first to last, whatever the token.
__device__ void AddProducts(const StepWeights& w, const Bf16x8* hidden,
                            float (&sums)[kSums]) {
#pragma unroll
  for (int r = 0; r < kRuns; ++r) {
#pragma unroll
    for (int t = 0; t < kStepTokens; ++t) {
      float h[8];
      Unpack(hidden[t * kPacks + r * 32 + threadIdx.x % 32], h);
#pragma unroll
      for (int k = 0; k < 8; ++k) {
#pragma unroll
        for (int d = 0; d < kWarpDims; ++d) {
          float& sum = sums[t * kWarpDims + d];
          sum = fmaf(w.v[d][r][k], h[k], sum);
        }
      }
    }
  }
}

// Lanes 2 * kHalf apart halve the sums between them: the upper one goes on with
// the upper half.
template <int kHalf>
__device__ void Halve(float (&sums)[kSums]) {
  const bool upper = (threadIdx.x & 2 * kHalf) != 0;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const float low = sums[i], high = sums[i + kHalf];
    const float other =
        __shfl_xor_sync(0xffffffffu, upper ? low : high, 2 * kHalf);
    sums[i] = (upper ? high : low) + other;
  }
}

// Sum number lane / 2 over the warp's lanes. Every sum has the same tree, up to
// the order of two summands.
__device__ float SumOfLane(float (&sums)[kSums]) {
  static_assert(kSums == 16);
  Halve<8>(sums);
  Halve<4>(sums);
  Halve<2>(sums);
  Halve<1>(sums);
  return sums[0] + __shfl_xor_sync(0xffffffffu, sums[0], 1);
}

// What a lane finishes: one output of one of a pass's tokens.
struct Output {
  int token;  // counted from the pass's first
  int dim;
  bool real;
};

__device__ Output OutputOfLane(int dims) {
  const int lane = threadIdx.x % 32;
  const int dim = FirstDim() + lane / 2 % kWarpDims;
  return {lane / 2 / kWarpDims, dim, lane % 2 == 0 && dim < dims};
}

// A warp owns kWarpDims outputs, a lane of it every 32nd run of eight columns;
// tokens pass through two buffers. kWide: beyond one slab, weights are loaded
// for each pass.
template <bool kWide>
__global__ void __launch_bounds__(kStepThreads, 1)
    ActionStepKernel(ActionStepArgs a) {
  __shared__ Bf16x8 hidden[2][kStepTokens * kPacks];
  LetNextStart();
  StepWeights w;
  LoadSlab(a, 0, w);
  const Output output = OutputOfLane(a.dim);
  const float bias = output.real ? a.bias[output.dim] : 0;
  WaitForPrevious();
  const int width = kWide ? a.width : kSlab;
  Pass pass;
  FetchHidden(a, pass, hidden[0]);
  CopyAsyncCommit();
  const float dt = *a.dt.Row();
  float sums[kSums] = {};
  for (int buffer = 0; pass.token < a.rows; buffer ^= 1) {
    const Pass next = pass.Next(width);
    if (next.token < a.rows) FetchHidden(a, next, hidden[buffer ^ 1]);
    CopyAsyncCommit();
    const int token = pass.token + output.token;
    const bool mine = output.real && token < a.rows;
    const long at = static_cast<long>(token) * a.dim + output.dim;
    const float before = mine ? a.x[at] : 0;
    if (kWide) LoadSlab(a, pass.column, w);
    CopyAsyncWait<1>();
    __syncthreads();
    AddProducts(w, hidden[buffer], sums);
    __syncthreads();  // before the next pass copies into this buffer
    const bool done = pass.IsLastOfGroup(width);
    pass = next;
    if (!done) continue;
    const float v = SumOfLane(sums) + bias;
#pragma unroll
    for (float& sum : sums) sum = 0;
    if (!mine) continue;
    a.x[at] = __fadd_rn(before, __fmul_rn(dt, v));
    if (a.velocity != nullptr) a.velocity[at] = v;
  }
}

}  // namespace

cudaError_t LaunchActionStep(const ActionStepArgs& args, cudaStream_t stream) {
  if (args.width % 8 != 0 || args.rows < 1) return cudaErrorInvalidValue;
  const int groups = CeilDiv(args.rows, kStepTokens);
  LaunchShape shape;
  shape.grid =
      dim3(std::min(groups, kTargetProcessors), CeilDiv(args.dim, kDims));
  shape.threads = kStepThreads;
  const auto kernel =
      args.width > kSlab ? ActionStepKernel<true> : ActionStepKernel<false>;
  return Launch(kernel, shape, stream, args);
}

}  // namespace piserve::kernels
