// SPDX-License-Identifier: Apache-2.0
// A block takes a row, and where there are more rows than blocks fit the device
// at once, every gridDim.x-th: scale and shift stay in registers, and the next
// row is on its way while this one is summed. A thread holds up to kChunks runs
// of eight columns, so x is read once. Every width in use fits one run a
// thread.
#include <algorithm>

#include "model/kernels/launch.cuh"
#include "model/kernels/norm.h"
#include "model/kernels/processors.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kMaxWarps = kMaxThreads / 32;
constexpr int kMaxChunks = 4;
constexpr int kMaxWidth = kMaxThreads * kMaxChunks * 8;
constexpr float kEpsilon = 1e-6f;

enum class Norm { kLayer, kRms, kAdaRms };
enum class Residual { kNone, kRows, kParts };  // of AddNormArgs

template <int kChunks>
struct Values {
  float v[kChunks][8] = {};
};

// A thread's columns of one row as they come from memory.
template <int kChunks>
struct Loaded {
  Bf16x8 x[kChunks] = {};
  Bf16x8 y[kChunks] = {};
};

__device__ int Column(int chunk) {
  return (chunk * static_cast<int>(blockDim.x) +
          static_cast<int>(threadIdx.x)) *
         8;
}

__device__ Bf16x8 LoadPacked(const __nv_bfloat16* p) {
  return *reinterpret_cast<const Bf16x8*>(p);
}

template <Residual kResidual, int kChunks>
__device__ void LoadRow(const AddNormArgs& a, long row,
                        Loaded<kChunks>& loaded) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const long at = row * a.width + Column(c);
    if (Column(c) >= a.width) continue;
    loaded.x[c] = LoadPacked(a.x + at);
    if (kResidual == Residual::kRows) loaded.y[c] = LoadPacked(a.y + at);
  }
}

template <int kChunks>
__device__ void LoadValues(const float* row, int width,
                           Values<kChunks>& values) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) < width) Load8(row + Column(c), values.v[c]);
  }
}

__device__ void LoadSum(const AddNormArgs& a, long at, float (&sum)[8]) {
  float second[8];
  Load8(a.parts + at, sum);
  Load8(a.parts + static_cast<long>(a.rows) * a.width + at, second);
#pragma unroll
  for (int i = 0; i < 8; ++i) sum[i] += second[i];
}

template <int kChunks>
__device__ void LoadGate(const AddNormArgs& a, Values<kChunks>& gate) {
  const float* row = a.gate.Row();
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (float& g : gate.v[c]) g = 1;
    if (a.gate.base == nullptr || Column(c) >= a.width) continue;
    Load8(row + Column(c), gate.v[c]);
  }
}

// x in FP32; with a residual bf16(x + gate * y), stored as well.
template <Norm kNorm, Residual kResidual, int kChunks>
__device__ void AddResidual(const AddNormArgs& a, long row,
                            const Loaded<kChunks>& loaded,
                            const Values<kChunks>& gate, Values<kChunks>& x) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int column = Column(c);
    if (kResidual == Residual::kNone || column >= a.width) {
      Unpack(loaded.x[c], x.v[c]);
      continue;
    }
    const long at = row * a.width + column;
    float y[8];
    if (kResidual == Residual::kParts) LoadSum(a, at, y);
    if (kResidual == Residual::kRows) Unpack(loaded.y[c], y);
    Unpack(loaded.x[c], x.v[c]);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      x.v[c][i] += y[i] * (kNorm == Norm::kAdaRms ? gate.v[c][i] : 1);
    }
    const Bf16x8 rounded = Pack(x.v[c]);
    *reinterpret_cast<Bf16x8*>(a.x + at) = rounded;
    Unpack(rounded, x.v[c]);
  }
}

__device__ float WarpSum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
  return value;
}

// Sums over the block in a fixed order, for every thread. Two sums in turn use
// two halves of the scratch: who writes a half again has met, at the other
// half's barrier, all who read it.
class BlockSums {
 public:
  explicit __device__ BlockSums(float* scratch) : scratch_(scratch) {}

  __device__ float operator()(float value) {
    value = WarpSum(value);
    float* half = scratch_ + turn_ * kMaxWarps;
    turn_ ^= 1;
    if (threadIdx.x % 32 == 0) half[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kMaxWarps; ++w) {
      if (w * 32 < static_cast<int>(blockDim.x)) sum += half[w];
    }
    return sum;
  }

 private:
  float* scratch_;  // [2, kMaxWarps]
  int turn_ = 0;
};

template <int kChunks>
__device__ float Mean(const Values<kChunks>& x, int width, BlockSums& sums) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (float v : x.v[c]) sum += v;
  }
  return sums(sum) / width;
}

// Mean of (x - shift)^2 over the row's columns.
template <int kChunks>
__device__ float MeanSquare(const Values<kChunks>& x, int width, float shift,
                            BlockSums& sums) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Column(c) >= width) continue;
#pragma unroll
    for (float v : x.v[c]) sum += (v - shift) * (v - shift);
  }
  return sums(sum) / width;
}

// What a normalised value is multiplied by. As asm the addition stays in the
// loop over rows: in front of it, it would wait for scale before the first sum.
template <Norm kNorm>
__device__ float Gain(float scale) {
  if (kNorm != Norm::kAdaRms) return scale;
  float gain;
  asm volatile("add.f32 %0, %1, 0f3F800000;" : "=f"(gain) : "f"(scale));
  return gain;
}

template <Norm kNorm, Residual kResidual, int kChunks>
__global__ void __launch_bounds__(kMaxThreads) AddNormKernel(AddNormArgs a) {
  __shared__ float scratch[2 * kMaxWarps];
  LetNextStart();
  WaitForPrevious();
  Loaded<kChunks> loaded;
  Values<kChunks> x, scale, shift, gate;
  LoadRow<kResidual>(a, blockIdx.x, loaded);
  __syncwarp();  // keeps the compiler from waiting for `step` first
  LoadValues(a.scale.Row(), a.width, scale);
  if (kNorm != Norm::kRms) LoadValues(a.shift.Row(), a.width, shift);
  if (kNorm == Norm::kAdaRms && kResidual != Residual::kNone) LoadGate(a, gate);
  BlockSums sums(scratch);
  for (long row = blockIdx.x; row < a.rows; row += gridDim.x) {
    AddResidual<kNorm, kResidual>(a, row, loaded, gate, x);
    const long next = row + gridDim.x;
    if (next < a.rows) LoadRow<kResidual>(a, next, loaded);
    const float mean = kNorm == Norm::kLayer ? Mean(x, a.width, sums) : 0.0f;
    const float inverse = rsqrtf(MeanSquare(x, a.width, mean, sums) + kEpsilon);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (Column(c) >= a.width) continue;
      float h[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        h[i] = (x.v[c][i] - mean) * inverse * Gain<kNorm>(scale.v[c][i]) +
               shift.v[c][i];
      }
      Store8(a.h + row * a.width + Column(c), h);
    }
  }
}

// A warp takes a row: no barrier, and all of its columns on their way at once.
constexpr int kMomentsWarps = 8;

template <int kChunks>
__global__ void __launch_bounds__(32 * kMomentsWarps)
    LayerMomentsKernel(const __nv_bfloat16* x, float2* moments, int rows,
                       int width) {
  LetNextStart();
  WaitForPrevious();
  const int lane = threadIdx.x % 32;
  const int row = blockIdx.x * kMomentsWarps + threadIdx.x / 32;
  if (row >= rows) return;
  Bf16x8 loaded[kChunks] = {};
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int column = (c * 32 + lane) * 8;
    if (column < width) {
      loaded[c] = LoadPacked(x + static_cast<long>(row) * width + column);
    }
  }
  float sum = 0, square = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    float v[8];
    Unpack(loaded[c], v);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += v[i];
  }
  const float mean = WarpSum(sum) / width;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if ((c * 32 + lane) * 8 >= width) continue;
    float v[8];
    Unpack(loaded[c], v);
#pragma unroll
    for (int i = 0; i < 8; ++i) square += (v[i] - mean) * (v[i] - mean);
  }
  const float scale = rsqrtf(WarpSum(square) / width + kEpsilon);
  if (lane == 0) moments[row] = {scale, -mean * scale};
}

template <int kChunks>
cudaError_t LaunchMoments(const __nv_bfloat16* x, float2* moments, int rows,
                          int width, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(CeilDiv(rows, kMomentsWarps));
  shape.threads = 32 * kMomentsWarps;
  return Launch(LayerMomentsKernel<kChunks>, shape, stream, x, moments, rows,
                width);
}

// As many blocks as the device holds at once, at most one a row.
template <typename Kernel>
cudaError_t LaunchRows(Kernel kernel, const AddNormArgs& a, int threads,
                       cudaStream_t stream) {
  int processors = 0, blocks = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  if (cudaError_t e = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
          &blocks, kernel, threads, 0);
      e != cudaSuccess) {
    return e;
  }
  LaunchShape shape;
  shape.grid = dim3(std::min(a.rows, processors * blocks));
  shape.threads = threads;
  return Launch(kernel, shape, stream, a);
}

template <Norm kNorm, Residual kResidual>
cudaError_t LaunchWith(const AddNormArgs& a, cudaStream_t stream) {
  const int wanted = (a.width / 8 + 31) / 32 * 32;
  return wanted <= kMaxThreads
             ? LaunchRows(AddNormKernel<kNorm, kResidual, 1>, a, wanted, stream)
             : LaunchRows(AddNormKernel<kNorm, kResidual, kMaxChunks>, a,
                          kMaxThreads, stream);
}

template <Norm kNorm>
cudaError_t LaunchNorm(const AddNormArgs& a, cudaStream_t stream) {
  if (a.width % 8 != 0 || a.width < 8 || a.width > kMaxWidth || a.rows < 1 ||
      (kNorm != Norm::kAdaRms && a.gate.base != nullptr)) {
    return cudaErrorInvalidValue;
  }
  if (a.parts != nullptr) {
    return LaunchWith<kNorm, Residual::kParts>(a, stream);
  }
  return a.y != nullptr ? LaunchWith<kNorm, Residual::kRows>(a, stream)
                        : LaunchWith<kNorm, Residual::kNone>(a, stream);
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

cudaError_t LaunchLayerMoments(const __nv_bfloat16* x, float2* moments,
                               int rows, int width, cudaStream_t stream) {
  constexpr int kFewChunks = 5;  // up to 1280 columns
  if (width % 8 != 0 || width < 8 || width > kMaxWidth || rows < 1) {
    return cudaErrorInvalidValue;
  }
  return width <= kFewChunks * 256
             ? LaunchMoments<kFewChunks>(x, moments, rows, width, stream)
             : LaunchMoments<kMaxWidth / 256>(x, moments, rows, width, stream);
}

cudaError_t LaunchRmsNorm(const __nv_bfloat16* x, const float* gain,
                          __nv_bfloat16* out, int rows, int width,
                          cudaStream_t stream) {
  return LaunchAddRmsNorm(
      NormOnly(x, Constant(gain), Constant(nullptr), out, rows, width), stream);
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
