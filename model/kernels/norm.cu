// SPDX-License-Identifier: Apache-2.0
// One block a row; a thread holds up to kChunks runs of eight values in
// registers, so x is read once.
#include "model/kernels/norm.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kChunks = 4;  // 256 threads * 4 * 8 = 8192 columns
constexpr float kEpsilon = 1e-6f;

struct RowValues {
  float v[kChunks][8];
};

__device__ int Column(int chunk) {
  return (chunk * static_cast<int>(blockDim.x) +
          static_cast<int>(threadIdx.x)) *
         8;
}

__device__ void LoadRow(const __nv_bfloat16* row, int width,
                        RowValues& values) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) < width) {
      Load8(row + Column(c), values.v[c]);
    } else {
#pragma unroll
      for (float& v : values.v[c]) v = 0;
    }
  }
}

// Sum of (v - shift)^2 over the row's columns.
__device__ float SquaredSum(const RowValues& values, int width, float shift,
                            float* scratch) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) >= width) continue;
#pragma unroll
    for (float v : values.v[c]) sum += (v - shift) * (v - shift);
  }
  return BlockSum(sum, scratch);
}

// out = (v - mean) * inv * (offset + scale) + shift, column by column; a null
// shift adds nothing.
__device__ void StoreRow(const RowValues& values, float mean, float inv,
                         float offset, const float* scale, const float* shift,
                         __nv_bfloat16* row, int width) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int column = Column(c);
    if (column >= width) continue;
    float s[8], b[8] = {}, y[8];
    Load8(scale + column, s);
    if (shift != nullptr) Load8(shift + column, b);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      y[i] = (values.v[c][i] - mean) * inv * (offset + s[i]) + b[i];
    }
    Store8(row + column, y);
  }
}

__global__ void __launch_bounds__(kMaxThreads)
    LayerNormKernel(const __nv_bfloat16* x, const float* weight,
                    const float* bias, __nv_bfloat16* out, int width) {
  __shared__ float scratch[kMaxThreads / 32];
  const long offset = static_cast<long>(blockIdx.x) * width;
  RowValues values;
  LoadRow(x + offset, width, values);
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (float v : values.v[c]) sum += v;
  }
  const float mean = BlockSum(sum, scratch) / width;
  const float variance = SquaredSum(values, width, mean, scratch) / width;
  StoreRow(values, mean, rsqrtf(variance + kEpsilon), 0, weight, bias,
           out + offset, width);
}

__device__ void RmsNormRow(const __nv_bfloat16* x, const float* scale,
                           const float* shift, float offset, __nv_bfloat16* out,
                           int width) {
  __shared__ float scratch[kMaxThreads / 32];
  const long start = static_cast<long>(blockIdx.x) * width;
  RowValues values;
  LoadRow(x + start, width, values);
  const float mean_square = SquaredSum(values, width, 0, scratch) / width;
  StoreRow(values, 0, rsqrtf(mean_square + kEpsilon), offset, scale, shift,
           out + start, width);
}

__global__ void __launch_bounds__(kMaxThreads)
    RmsNormKernel(const __nv_bfloat16* x, const float* gain, __nv_bfloat16* out,
                  int width) {
  RmsNormRow(x, gain, nullptr, 0, out, width);
}

__global__ void __launch_bounds__(kMaxThreads)
    AdaRmsNormKernel(const __nv_bfloat16* x, StepTable modulation,
                     __nv_bfloat16* out, int width) {
  const float* scale = modulation.Row();
  RmsNormRow(x, scale, scale + width, 1, out, width);
}

int Threads(int width) {
  const int wanted = (width / 8 + 31) / 32 * 32;
  return wanted < kMaxThreads ? wanted : kMaxThreads;
}

bool Supported(int width) {
  return width % 8 == 0 && width <= kMaxThreads * kChunks * 8;
}

}  // namespace

cudaError_t LaunchLayerNorm(const __nv_bfloat16* x, const float* weight,
                            const float* bias, __nv_bfloat16* out, int rows,
                            int width, cudaStream_t stream) {
  if (!Supported(width)) return cudaErrorInvalidValue;
  LayerNormKernel<<<rows, Threads(width), 0, stream>>>(x, weight, bias, out,
                                                       width);
  return cudaGetLastError();
}

cudaError_t LaunchRmsNorm(const __nv_bfloat16* x, const float* gain,
                          __nv_bfloat16* out, int rows, int width,
                          cudaStream_t stream) {
  if (!Supported(width)) return cudaErrorInvalidValue;
  RmsNormKernel<<<rows, Threads(width), 0, stream>>>(x, gain, out, width);
  return cudaGetLastError();
}

cudaError_t LaunchAdaRmsNorm(const __nv_bfloat16* x, StepTable modulation,
                             __nv_bfloat16* out, int rows, int width,
                             cudaStream_t stream) {
  if (!Supported(width)) return cudaErrorInvalidValue;
  AdaRmsNormKernel<<<rows, Threads(width), 0, stream>>>(x, modulation, out,
                                                        width);
  return cudaGetLastError();
}

}  // namespace piserve::kernels
