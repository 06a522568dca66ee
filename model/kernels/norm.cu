// SPDX-License-Identifier: Apache-2.0
// A team, a block or a warp, takes a row; each thread holds up to kChunks runs
// of eight values in registers, so x is read once. Blocks serve few rows best,
// and have what the affine needs on its way while the row is summed; warps
// serve many: no barriers.
#include "model/kernels/launch.cuh"
#include "model/kernels/norm.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kMaxChunks = 4;  // 256 threads * 4 * 8 = 8192 columns
constexpr int kWarpsPerBlock = 4;
constexpr int kLeastRowsForWarps = 512;
constexpr float kEpsilon = 1e-6f;

enum class Norm { kLayer, kRms, kAdaRms };
enum class TeamKind { kBlock, kWarp };

template <int kChunks>
struct Values {
  float v[kChunks][8] = {};
};

template <TeamKind kKind>
struct Team {
  float* scratch;  // of a block

  static __device__ int Column(int chunk) {
    const int lanes = kKind == TeamKind::kWarp ? 32 : blockDim.x;
    return (chunk * lanes + static_cast<int>(threadIdx.x) % lanes) * 8;
  }
  // In a fixed order; every thread gets it.
  __device__ float Sum(float value) const {
    if (kKind == TeamKind::kBlock) return BlockSum(value, scratch);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
      value += __shfl_xor_sync(~0u, value, offset);
    }
    return value;
  }
};

template <typename Team, int kChunks, typename T>
__device__ void LoadValues(const T* row, int width, Values<kChunks>& values) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Team::Column(c) < width) Load8(row + Team::Column(c), values.v[c]);
  }
}

// The residual: y, or the sum of its parts.
template <typename Team, int kChunks>
__device__ void LoadResidual(const AddNormArgs& a, long row,
                             Values<kChunks>& y) {
  if (a.parts == nullptr) {
    LoadValues<Team>(a.y + row, a.width, y);
    return;
  }
  Values<kChunks> second;
  LoadValues<Team>(a.parts + row, a.width, y);
  LoadValues<Team>(a.parts + static_cast<long>(a.rows) * a.width + row, a.width,
                   second);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int i = 0; i < 8; ++i) y.v[c][i] += second.v[c][i];
  }
}

// x = bf16(x + gate * y) in registers and in memory.
template <typename Team, int kChunks>
__device__ void AddResidual(const AddNormArgs& a, long row,
                            Values<kChunks>& x) {
  Values<kChunks> y;
  LoadResidual<Team>(a, row, y);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const int column = Team::Column(c);
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

template <typename Team, int kChunks>
__device__ float Mean(const Values<kChunks>& x, int width, const Team& team) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (float v : x.v[c]) sum += v;
  }
  return team.Sum(sum) / width;
}

// Mean of (x - shift)^2 over the row's columns.
template <typename Team, int kChunks>
__device__ float MeanSquare(const Values<kChunks>& x, int width, float shift,
                            const Team& team) {
  float sum = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Team::Column(c) >= width) continue;
#pragma unroll
    for (float v : x.v[c]) sum += (v - shift) * (v - shift);
  }
  return team.Sum(sum) / width;
}

// Scale and shift of a row's columns: a block has them loaded while it sums, a
// warp, which takes row after row, finds them in L1 when it needs them.
template <Norm kNorm, TeamKind kKind, int kChunks>
struct Affine {
  const float* scale_row;
  const float* shift_row;
  Values<kChunks> scale, shift;

  __device__ Affine(const AddNormArgs& a)
      : scale_row(a.scale.Row()),
        shift_row(kNorm == Norm::kRms ? nullptr : a.shift.Row()) {
    if (kKind == TeamKind::kWarp) return;
    LoadValues<Team<kKind>>(scale_row, a.width, scale);
    if (kNorm != Norm::kRms) {
      LoadValues<Team<kKind>>(shift_row, a.width, shift);
    }
  }

  __device__ void Apply(int chunk, float mean, float inverse,
                        float (&x)[8]) const {
    constexpr float kOffset = kNorm == Norm::kAdaRms ? 1 : 0;
    float gain[8], add[8] = {};
    if (kKind == TeamKind::kWarp) {
      Load8(scale_row + Team<kKind>::Column(chunk), gain);
      if (kNorm != Norm::kRms) {
        Load8(shift_row + Team<kKind>::Column(chunk), add);
      }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool loaded = kKind == TeamKind::kBlock;
      x[i] = (x[i] - mean) * inverse *
                 (kOffset + (loaded ? scale.v[chunk][i] : gain[i])) +
             (loaded ? shift.v[chunk][i] : add[i]);
    }
  }
};

template <Norm kNorm, TeamKind kKind, int kChunks>
__device__ void NormRow(const AddNormArgs& a, long row,
                        const Team<kKind>& team) {
  using Members = Team<kKind>;
  Values<kChunks> x;
  LoadValues<Members>(a.x + row, a.width, x);
  const Affine<kNorm, kKind, kChunks> affine(a);
  if (a.y != nullptr || a.parts != nullptr) AddResidual<Members>(a, row, x);
  const float mean = kNorm == Norm::kLayer ? Mean(x, a.width, team) : 0.0f;
  const float inverse = rsqrtf(MeanSquare(x, a.width, mean, team) + kEpsilon);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (Members::Column(c) >= a.width) continue;
    affine.Apply(c, mean, inverse, x.v[c]);
    Store8(a.h + row + Members::Column(c), x.v[c]);
  }
}

template <Norm kNorm, int kChunks>
__global__ void __launch_bounds__(kMaxThreads) AddNormKernel(AddNormArgs a) {
  __shared__ float scratch[kMaxThreads / 32];
  LetNextStart();
  WaitForPrevious();
  NormRow<kNorm, TeamKind::kBlock, kChunks>(
      a, static_cast<long>(blockIdx.x) * a.width, {scratch});
}

template <Norm kNorm, int kChunks>
__global__ void __launch_bounds__(kWarpsPerBlock * 32, 3)
    WarpNormKernel(AddNormArgs a) {
  LetNextStart();
  WaitForPrevious();
  const int row = static_cast<int>(blockIdx.x) * kWarpsPerBlock +
                  static_cast<int>(threadIdx.x) / 32;
  if (row >= a.rows) return;
  NormRow<kNorm, TeamKind::kWarp, kChunks>(a, static_cast<long>(row) * a.width,
                                           {});
}

// Many rows of a width that 32 threads hold.
template <Norm kNorm>
cudaError_t LaunchWarps(const AddNormArgs& a, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3((a.rows + kWarpsPerBlock - 1) / kWarpsPerBlock);
  shape.threads = kWarpsPerBlock * 32;
  return a.width <= 1024   ? Launch(WarpNormKernel<kNorm, 4>, shape, stream, a)
         : a.width <= 1280 ? Launch(WarpNormKernel<kNorm, 5>, shape, stream, a)
                           : Launch(WarpNormKernel<kNorm, 8>, shape, stream, a);
}

template <Norm kNorm>
cudaError_t LaunchNorm(const AddNormArgs& a, cudaStream_t stream) {
  if (a.width % 8 != 0 || a.width < 8 ||
      a.width > kMaxThreads * kMaxChunks * 8 || a.rows < 1) {
    return cudaErrorInvalidValue;
  }
  if (a.rows >= kLeastRowsForWarps && a.width <= 2048) {
    return LaunchWarps<kNorm>(a, stream);
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
