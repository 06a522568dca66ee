// SPDX-License-Identifier: Apache-2.0
// One block a row; a thread holds up to kChunks runs of eight values in
// registers, so x is read once and what the affine needs is on its way while
// the row is summed. Every width in use fits one run a thread.
#include "model/kernels/launch.cuh"
#include "model/kernels/norm.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kMaxChunks = 4;  // 256 threads * 4 * 8 = 8192 columns
constexpr float kEpsilon = 1e-6f;

enum class Norm { kLayer, kRms, kAdaRms };

template <int kChunks>
struct Values {
  float v[kChunks][8] = {};
};

__device__ int Column(int chunk) {
  return (chunk * static_cast<int>(blockDim.x) +
          static_cast<int>(threadIdx.x)) *
         8;
}

template <int kChunks, typename T>
__device__ void LoadValues(const T* row, int width, Values<kChunks>& values) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) < width) Load8(row + Column(c), values.v[c]);
  }
}

// The sum of kParts parts, all of which are on their way at once.
template <int kParts, int kChunks>
__device__ void LoadSum(const AddNormArgs& a, long row, Values<kChunks>& sum) {
  const long stride = static_cast<long>(a.rows) * a.width;
  Values<kChunks> parts[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    LoadValues(a.parts + p * stride + row, a.width, parts[p]);
  }
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      sum.v[c][i] = parts[0].v[c][i];
#pragma unroll
      for (int p = 1; p < kParts; ++p) sum.v[c][i] += parts[p].v[c][i];
    }
  }
}

// The residual: y, or the sum of its parts.
template <int kChunks>
__device__ void LoadResidual(const AddNormArgs& a, long row,
                             Values<kChunks>& y) {
  if (a.parts == nullptr) {
    LoadValues(a.y + row, a.width, y);
  } else if (a.part_count == 2) {
    LoadSum<2>(a, row, y);
  } else {
    LoadSum<4>(a, row, y);
  }
}

// x = bf16(x + gate * y) in registers and in memory.
template <int kChunks>
__device__ void AddResidual(const AddNormArgs& a, long row,
                            Values<kChunks>& x) {
  Values<kChunks> y;
  LoadResidual(a, row, y);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int column = Column(c);
    if (column >= a.width) continue;
    float gate[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    if (a.gate.base != nullptr) Load8(a.gate.Row() + column, gate);
#pragma unroll
    for (int i = 0; i < 8; ++i) x.v[c][i] += y.v[c][i] * gate[i];
    const Bf16x8 rounded = Pack(x.v[c]);
    *reinterpret_cast<Bf16x8*>(a.x + row + column) = rounded;
    Unpack(rounded, x.v[c]);
  }
}

template <int kChunks>
__device__ float Mean(const Values<kChunks>& x, int width, float* scratch) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (float v : x.v[c]) sum += v;
  }
  return BlockSum(sum, scratch) / width;
}

// Mean of (x - shift)^2 over the row's columns.
template <int kChunks>
__device__ float MeanSquare(const Values<kChunks>& x, int width, float shift,
                            float* scratch) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) >= width) continue;
#pragma unroll
    for (float v : x.v[c]) sum += (v - shift) * (v - shift);
  }
  return BlockSum(sum, scratch) / width;
}

template <Norm kNorm, int kChunks>
__global__ void __launch_bounds__(kMaxThreads) AddNormKernel(AddNormArgs a) {
  __shared__ float scratch[kMaxThreads / 32];
  LetNextStart();
  WaitForPrevious();
  const long row = static_cast<long>(blockIdx.x) * a.width;
  Values<kChunks> x, scale, shift;
  LoadValues(a.x + row, a.width, x);
  LoadValues(a.scale.Row(), a.width, scale);
  if (kNorm != Norm::kRms) LoadValues(a.shift.Row(), a.width, shift);
  if (a.y != nullptr || a.parts != nullptr) AddResidual(a, row, x);
  const float mean = kNorm == Norm::kLayer ? Mean(x, a.width, scratch) : 0.0f;
  const float inverse =
      rsqrtf(MeanSquare(x, a.width, mean, scratch) + kEpsilon);
  constexpr float kOffset = kNorm == Norm::kAdaRms ? 1 : 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) >= a.width) continue;
    float h[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      h[i] = (x.v[c][i] - mean) * inverse * (kOffset + scale.v[c][i]) +
             shift.v[c][i];
    }
    Store8(a.h + row + Column(c), h);
  }
}

template <Norm kNorm>
cudaError_t LaunchNorm(const AddNormArgs& a, cudaStream_t stream) {
  if (a.width % 8 != 0 || a.width < 8 ||
      a.width > kMaxThreads * kMaxChunks * 8 || a.rows < 1 ||
      (a.parts != nullptr && a.part_count != 2 && a.part_count != 4)) {
    return cudaErrorInvalidValue;
  }
  const int wanted = (a.width / 8 + 31) / 32 * 32;
  LaunchShape shape;
  shape.grid = dim3(a.rows);
  shape.threads = wanted < kMaxThreads ? wanted : kMaxThreads;
  if (wanted <= kMaxThreads) {
    return Launch(AddNormKernel<kNorm, 1>, shape, stream, a);
  }
  return Launch(AddNormKernel<kNorm, kMaxChunks>, shape, stream, a);
}

// Without y, x is only read.
AddNormArgs NormOnly(const __nv_bfloat16* x, StepTable scale, StepTable shift,
                     __nv_bfloat16* out, int rows, int width) {
  AddNormArgs args;
  args.x = const_cast<__nv_bfloat16*>(x);
  args.h = out;
  args.scale = scale;
  args.shift = shift;
  args.rows = rows;
  args.width = width;
  return args;
}

StepTable Constant(const float* row) {
  StepTable table;
  table.base = row;
  return table;
}

}  // namespace

cudaError_t LaunchLayerNorm(const __nv_bfloat16* x, const float* weight,
                            const float* bias, __nv_bfloat16* out, int rows,
                            int width, cudaStream_t stream) {
  return LaunchAddLayerNorm(
      NormOnly(x, Constant(weight), Constant(bias), out, rows, width), stream);
}

cudaError_t LaunchRmsNorm(const __nv_bfloat16* x, const float* gain,
                          __nv_bfloat16* out, int rows, int width,
                          cudaStream_t stream) {
  return LaunchAddRmsNorm(
      NormOnly(x, Constant(gain), Constant(nullptr), out, rows, width), stream);
}

cudaError_t LaunchAdaRmsNorm(const __nv_bfloat16* x, StepTable modulation,
                             __nv_bfloat16* out, int rows, int width,
                             cudaStream_t stream) {
  StepTable shift = modulation;
  shift.base += width;
  return LaunchAddAdaRmsNorm(NormOnly(x, modulation, shift, out, rows, width),
                             stream);
}

cudaError_t LaunchAddLayerNorm(const AddNormArgs& args, cudaStream_t stream) {
  return LaunchNorm<Norm::kLayer>(args, stream);
}

cudaError_t LaunchAddRmsNorm(const AddNormArgs& args, cudaStream_t stream) {
  return LaunchNorm<Norm::kRms>(args, stream);
}

cudaError_t LaunchAddAdaRmsNorm(const AddNormArgs& args, cudaStream_t stream) {
  return LaunchNorm<Norm::kAdaRms>(args, stream);
}

}  // namespace piserve::kernels
