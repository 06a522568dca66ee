// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/expert/layout.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"

namespace piserve::kernels {
namespace expert {
namespace {

constexpr int kPackThreads = 256;

__device__ const __nv_bfloat16* QkvRow(const ExpertLayerWeights& w, int group,
                                       int x) {
  const long in = kExpertWidth;
  if (group >= kFirstValueGroup) {
    return w.v + ValueDim(group - kFirstValueGroup, x) * in;
  }
  const int dim = RopeDim(group, x >> 1) + 128 * (x & 1);
  if (group >= kFirstKeyGroup) return w.k + dim * in;
  return w.q + ((group >> 5) * kHeadDim + dim) * in;
}

__device__ const __nv_bfloat16* GateUpRow(const ExpertLayerWeights& w,
                                          int block, int n) {
  const bool gate = (n & 1) == 0;
  const long output = 32 * block + GateColumn(n);
  if (w.gate_up == GateUpRows::kPacked) {
    const long row = GegluGateRow(static_cast<int>(output));
    return w.gate + (gate ? row : row + kGegluUpOffset) * kExpertWidth;
  }
  return (gate ? w.gate : w.up) + output * kExpertWidth;
}

// 16 bytes: columns column(8 k8) .. of one row.
template <typename Column>
__device__ uint4 Gather(const __nv_bfloat16* row, int k8, Column column) {
  unsigned w[4];
  for (int i = 0; i < 4; ++i) {
    w[i] = *reinterpret_cast<const unsigned*>(row + column(8 * k8 + 2 * i));
  }
  return make_uint4(w[0], w[1], w[2], w[3]);
}

// `groups` of 8 rows by `k` columns into core matrices [k / 8][groups].
template <typename Row, typename Column>
__device__ void PackMatrix(char* to, int groups, int k, Row row,
                           Column column) {
  for (int i = threadIdx.x; i < groups * k; i += kPackThreads) {
    const int n = i % (8 * groups), k8 = i / (8 * groups);
    reinterpret_cast<uint4*>(to)[i] = Gather(row(n), k8, column);
  }
}

__global__ void __launch_bounds__(kPackThreads)
    PackLayerKernel(ExpertLayerWeights w, int layer, char* packed) {
  const int block = blockIdx.x, split = block / 16, part = block % 16;
  const int groups = GroupCount(block);
  const auto column = [](int p) { return ColumnOf(p); };
  char* to = packed + PackedAt(layer, block);
  PackMatrix(
      to, groups, kExpertWidth,
      [&](int n) { return QkvRow(w, GroupOf(block, n / 8), n % 8); }, column);
  to += groups * kGroupBytes;
  PackMatrix(
      to, 8, kHeadDim,
      [&](int n) {
        return w.o + (64L * part + SumColumn(n)) * (kHeads * kHeadDim) +
               split * kHeadDim;
      },
      column);
  to += kOutBytes;
  PackMatrix(
      to, 8, kExpertWidth, [&](int n) { return GateUpRow(w, block, n); },
      column);
  to += kGateUpBytes;
  PackMatrix(
      to, 8, 512,
      [&](int n) {
        return w.down + (64L * part + SumColumn(n)) * kExpertMlp + split * 512;
      },
      column);
}

__global__ void __launch_bounds__(kPackThreads)
    PackSuffixKernel(const __nv_bfloat16* w, char* packed) {
  const long block = blockIdx.x;
  PackMatrix(
      packed + kExpertDepth * kLayerBytes + block * kGroupBytes, 1,
      kExpertWidth, [&](int n) { return w + (8 * block + n) * kExpertWidth; },
      [](int p) { return SuffixColumnOf(p); });
}

__device__ float WarpDot(const __nv_bfloat16* row, const float* x) {
  float sum = 0;
  for (int k = threadIdx.x % 32; k < kExpertWidth; k += 32) {
    sum += __bfloat162float(row[k]) * x[k];
  }
  for (int m = 16; m > 0; m /= 2) sum += __shfl_xor_sync(~0u, sum, m);
  return sum;
}

// A warp a position of the layer's shift row.
__global__ void __launch_bounds__(kPackThreads)
    ShiftKernel(ExpertLayerWeights w, int layer, const float* modulation,
                float* shift) {
  const int i = (blockIdx.x * kPackThreads + threadIdx.x) / 32;
  const int time = blockIdx.y, qkv = kQkvGroups * 8;
  const bool attention = i < qkv;
  const int norm = 2 * layer + (attention ? 0 : 1);
  const float* x = modulation + static_cast<long>(time) * kModulationRow +
                   (3 * norm + 1) * kExpertWidth;
  const __nv_bfloat16* row = attention
                                 ? QkvRow(w, i / 8, i % 8)
                                 : GateUpRow(w, (i - qkv) / 64, (i - qkv) % 64);
  const float sum = WarpDot(row, x);
  if (threadIdx.x % 32 != 0) return;
  shift[static_cast<long>(time) * kShiftRow + layer * kLayerShift + i] = sum;
}

// Behind the last norm: out_weight shift + out_bias.
__global__ void OutShiftKernel(ExpertShiftArgs a) {
  const int time = blockIdx.x, o = threadIdx.x;
  const float* x = a.modulation + static_cast<long>(time) * kModulationRow +
                   (3 * (kExpertNorms - 1) + 1) * kExpertWidth;
  float sum = 0;
  for (int k = 0; k < kExpertWidth; ++k) {
    sum += a.out_weight[o * kExpertWidth + k] * x[k];
  }
  a.shift[static_cast<long>(time) * kShiftRow + kExpertDepth * kLayerShift +
          o] = sum + a.out_bias[o];
}

}  // namespace
}  // namespace expert

std::size_t ExpertPackedBytes() { return expert::kPackedBytes; }

cudaError_t LaunchExpertPack(const ExpertWeights& weights, void* packed,
                             cudaStream_t stream) {
  char* to = static_cast<char*>(packed);
  for (int layer = 0; layer < kExpertDepth; ++layer) {
    expert::
        PackLayerKernel<<<expert::kBlocks, expert::kPackThreads, 0, stream>>>(
            weights.layers[layer], layer, to);
  }
  if (weights.suffix_mlp_out != nullptr) {
    expert::
        PackSuffixKernel<<<expert::kBlocks, expert::kPackThreads, 0, stream>>>(
            weights.suffix_mlp_out, to);
  }
  return cudaGetLastError();
}

std::size_t ExpertShiftBytes(int rows) {
  return sizeof(float) * expert::kShiftRow * static_cast<std::size_t>(rows);
}

cudaError_t LaunchExpertShift(const ExpertShiftArgs& args,
                              cudaStream_t stream) {
  const int warps = expert::kPackThreads / 32;
  const dim3 grid(expert::kLayerShift / warps, args.rows);
  for (int layer = 0; layer < kExpertDepth; ++layer) {
    expert::ShiftKernel<<<grid, expert::kPackThreads, 0, stream>>>(
        args.weights.layers[layer], layer, args.modulation, args.shift);
  }
  expert::OutShiftKernel<<<args.rows, kExpertActionDim, 0, stream>>>(args);
  return cudaGetLastError();
}

}  // namespace piserve::kernels
