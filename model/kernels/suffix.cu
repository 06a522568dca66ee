// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/launch.cuh"
#include "model/kernels/suffix.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kMaxIn = 64;
constexpr int kColumns = 128;   // a block's, one a thread
constexpr int kTokenTile = 16;  // a block's rows
constexpr int kStepThreads = 256;

// A thread owns one output column and keeps its weights in registers; the block
// walks over a tile of tokens staged in shared memory.
__global__ void __launch_bounds__(kColumns)
    SmallLinearKernel(SmallLinearArgs a) {
  LetNextStart();
  WaitForPrevious();
  __shared__ float x[kTokenTile][kMaxIn];
  const int first = blockIdx.y * kTokenTile;
  const int count = min(kTokenTile, a.rows - first);
  for (int i = threadIdx.x; i < count * a.in; i += kColumns) {
    x[i / a.in][i % a.in] = a.x[static_cast<long>(first) * a.in + i];
  }
  __syncthreads();
  const int column = blockIdx.x * kColumns + threadIdx.x;
  if (column >= a.out) return;
  const float* w = a.weight + static_cast<long>(column) * a.in;
  const float bias = a.bias.Row()[column];
  float weight[kMaxIn];
#pragma unroll
  for (int k = 0; k < kMaxIn; ++k) weight[k] = k < a.in ? w[k] : 0;
  for (int t = 0; t < count; ++t) {
    float sum = 0;
#pragma unroll
    for (int k = 0; k < kMaxIn; ++k) {
      if (k < a.in) sum += weight[k] * x[t][k];
    }
    sum += bias;
    if (a.activation == Activation::kSilu) sum = sum / (1 + expf(-sum));
    a.y[a.tokens.Index(first + t) * a.out + column] = __float2bfloat16_rn(sum);
  }
}

// One block a token: its hidden row in shared memory, a warp an output.
__global__ void __launch_bounds__(kStepThreads)
    ActionStepKernel(ActionStepArgs a) {
  LetNextStart();
  WaitForPrevious();
  extern __shared__ float hidden[];
  const long row = blockIdx.x;
  for (int i = threadIdx.x * 8; i < a.width; i += kStepThreads * 8) {
    float h[8];
    Load8(a.hidden + a.tokens.Index(row) * a.width + i, h);
#pragma unroll
    for (int k = 0; k < 8; ++k) hidden[i + k] = h[k];
  }
  __syncthreads();
  const float dt = *a.dt.Row();
  const int lane = threadIdx.x % 32;
  for (int d = threadIdx.x / 32; d < a.dim; d += kStepThreads / 32) {
    const float* w = a.weight + static_cast<long>(d) * a.width;
    float sum = 0;
    for (int i = lane; i < a.width; i += 32) sum += w[i] * hidden[i];
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    }
    if (lane != 0) continue;
    const float v = sum + a.bias[d];
    float* x = a.x + row * a.dim + d;
    *x = __fadd_rn(*x, __fmul_rn(dt, v));
    if (a.velocity != nullptr) a.velocity[row * a.dim + d] = v;
  }
}

}  // namespace

cudaError_t LaunchSmallLinear(const SmallLinearArgs& args,
                              cudaStream_t stream) {
  if (args.in > kMaxIn) return cudaErrorInvalidValue;
  const dim3 grid((args.out + kColumns - 1) / kColumns,
                  (args.rows + kTokenTile - 1) / kTokenTile);
  LaunchShape shape;
  shape.grid = grid;
  shape.threads = kColumns;
  return Launch(SmallLinearKernel, shape, stream, args);
}

cudaError_t LaunchActionStep(const ActionStepArgs& args, cudaStream_t stream) {
  if (args.width % 8 != 0) return cudaErrorInvalidValue;
  LaunchShape shape;
  shape.grid = dim3(args.rows);
  shape.threads = kStepThreads;
  shape.shared_bytes = args.width * sizeof(float);
  return Launch(ActionStepKernel, shape, stream, args);
}

}  // namespace piserve::kernels
