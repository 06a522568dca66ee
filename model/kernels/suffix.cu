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

int CeilDiv(int a, int b) { return (a + b - 1) / b; }

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

cudaError_t LaunchSmallLinear(const SmallLinearArgs& args,
                              cudaStream_t stream) {
  if (args.in > 64 || args.out % 4 != 0 || args.rows < 1) {
    return cudaErrorInvalidValue;
  }
  return args.in <= 32 ? LaunchLinear<32, 4>(args, stream)
                       : LaunchLinear<64, 2>(args, stream);
}

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
