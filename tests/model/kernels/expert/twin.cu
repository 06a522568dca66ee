// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "tests/model/kernels/expert/twin.h"

namespace piserve::kernels {
namespace {

constexpr int kWidth = kExpertWidth, kQkv = 2560, kDim = 256, kHalf = 128;
constexpr int kThreads = 256;
constexpr int kMaxKeys = 2048;

__device__ double Round(double v, Rounding r) {
  if (r == Rounding::kNone) return v;
  return __bfloat162float(__double2bfloat16(v));
}

__device__ double Silu(double v) { return v / (1 + exp(-v)); }

struct State {
  TwinArgs twin;
  Rounding rounding;
  int rows;      // actions, then Pi0's state token
  double* x;     // [H, 32]
  double* z;     // [H, 1024]
  double* h;     // [rows, 1024] residual
  double* n;     // [rows, 1024] normalised
  double* qkv;   // [rows, 2560]
  double* o;     // [rows, 2048]
  double* y;     // [rows, 1024]
  double* gate;  // [rows, 4096]
  double* up;    // [rows, 4096]
  double* out;   // [H, 32] velocity

  __device__ bool IsPi0() const { return twin.args.form == ExpertForm::kPi0; }
  __device__ double R(double v) const { return Round(v, rounding); }
};

__device__ int Index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__global__ void Narrow(State s, int time) {
  const int i = Index(), row = i / kWidth, column = i % kWidth;
  const ExpertArgs& a = s.twin.args;
  if (row >= a.horizon) return;
  double sum =
      s.IsPi0() ? a.in_bias[time * kWidth + column] : a.in_bias[column];
  for (int k = 0; k < 32; ++k) {
    sum +=
        static_cast<double>(a.in_weight[column * 32 + k]) * s.x[row * 32 + k];
  }
  if (s.IsPi0()) {
    s.z[i] = Silu(sum);
  } else {
    s.h[i] = s.R(sum);
  }
}

__global__ void SuffixMlp(State s) {
  const int i = Index(), row = i / kWidth, column = i % kWidth;
  const ExpertArgs& a = s.twin.args;
  if (row > a.horizon) return;
  double sum = 0;
  if (row == a.horizon) {
    sum = a.state_bias[column];
    for (int k = 0; k < 32; ++k) {
      sum += static_cast<double>(a.state_weight[column * 32 + k]) * a.state[k];
    }
  } else {
    sum = a.suffix_bias[column];
    const __nv_bfloat16* w = s.twin.weights.suffix_mlp_out + column * kWidth;
    for (int k = 0; k < kWidth; ++k) {
      sum +=
          static_cast<double>(__bfloat162float(w[k])) * s.z[row * kWidth + k];
    }
  }
  s.h[i] = s.R(sum);
}

// A block a row.
__global__ void Norm(State s, int time, int norm) {
  __shared__ double squares;
  const double* x = s.h + blockIdx.x * kWidth;
  if (threadIdx.x == 0) {
    squares = 0;
    for (int k = 0; k < kWidth; ++k) squares += x[k] * x[k];
  }
  __syncthreads();
  const double scale = 1 / sqrt(squares / kWidth + 1e-6);
  const float* table = s.twin.args.norm;
  for (int k = threadIdx.x; k < kWidth; k += blockDim.x) {
    double gain, shift = 0;
    if (s.IsPi0()) {
      gain = table[norm * kWidth + k];
    } else {
      const float* row = table + (static_cast<long>(time) * 37 + norm) * 3072;
      gain = row[k];
      shift = row[kWidth + k];
    }
    s.n[blockIdx.x * kWidth + k] = s.R(x[k] * scale * (1 + gain) + shift);
  }
}

// out[row][n] = in[row] . w[n], a warp an n.
__global__ void Product(State s, const double* in, const __nv_bfloat16* w,
                        int n_count, int k_count, double* out, int stride) {
  const int n = Index() / 32, lane = threadIdx.x % 32;
  if (n >= n_count) return;
  for (int row = 0; row < s.rows; ++row) {
    double sum = 0;
    for (int k = lane; k < k_count; k += 32) {
      sum += in[static_cast<long>(row) * k_count + k] *
             __bfloat162float(w[static_cast<long>(n) * k_count + k]);
    }
    for (int m = 16; m > 0; m /= 2) sum += __shfl_xor_sync(~0u, sum, m);
    if (lane == 0) out[static_cast<long>(row) * stride + n] = s.R(sum);
  }
}

__global__ void Rope(State s) {
  const int i = Index(), row = i / (9 * kHalf), d = i % kHalf;
  const int head = i / kHalf % 9, horizon = s.twin.args.horizon;
  if (row >= s.rows) return;
  const int position =
      s.twin.call.prefix + (s.IsPi0() ? (row == horizon ? 0 : row + 1) : row);
  const float2 table = s.twin.args.rope[position * kHalf + d];
  const double c = s.R(table.x), e = s.R(table.y);
  double* q = s.qkv + static_cast<long>(row) * kQkv + head * kDim;
  const double a = q[d], b = q[d + kHalf];
  q[d] = s.R(s.R(a * c) + s.R(-b * e));
  q[d + kHalf] = s.R(s.R(b * c) + s.R(a * e));
}

__device__ double KeyOrValue(const State& s, int layer, int key, int d,
                             bool value) {
  const ExpertArgs& a = s.twin.args;
  if (key < s.twin.call.prefix) {
    const __nv_bfloat16* cache = value ? a.cache_v : a.cache_k;
    return __bfloat162float(cache[layer * a.cache_stride + key * kDim + d]);
  }
  return s.qkv[static_cast<long>(key - s.twin.call.prefix) * kQkv +
               (value ? 2304 : 2048) + d];
}

// A block a row and head, a thread a dimension.
__global__ void Attention(State s, int layer) {
  __shared__ double score[kMaxKeys];
  const int row = blockIdx.x, head = blockIdx.y, d = threadIdx.x;
  const int prefix = s.twin.call.prefix, keys = prefix + s.rows;
  const bool state = row == s.twin.args.horizon;
  const double* q = s.qkv + static_cast<long>(row) * kQkv + head * kDim;
  for (int key = d; key < keys; key += blockDim.x) {
    double sum = 0;
    for (int k = 0; k < kDim; ++k) {
      sum += q[k] * KeyOrValue(s, layer, key, k, false);
    }
    const bool seen = !state || key < prefix || key == prefix + row;
    score[key] = seen ? s.R(s.R(sum) / 16) : -1e300;
  }
  __syncthreads();
  double most = -1e300, total = 0, sum = 0;
  for (int key = 0; key < keys; ++key) most = max(most, score[key]);
  for (int key = 0; key < keys; ++key) total += exp(score[key] - most);
  for (int key = 0; key < keys; ++key) {
    const double p = s.R(exp(score[key] - most) / total);
    if (p != 0) sum += p * KeyOrValue(s, layer, key, d, true);
  }
  s.o[row * 2048L + head * kDim + d] = s.R(sum);
}

__global__ void Add(State s, int time, int norm) {
  const int i = Index(), row = i / kWidth, column = i % kWidth;
  if (row >= s.rows) return;
  double y = s.y[i];
  if (!s.IsPi0()) {
    const long at = (static_cast<long>(time) * 37 + norm) * 3072 + 2048;
    y = s.R(y * s.R(s.twin.args.norm[at + column]));
  }
  s.h[i] = s.R(s.h[i] + y);
}

__global__ void Glu(State s) {
  const int i = Index();
  if (i >= s.rows * kExpertMlp) return;
  const double v = s.gate[i];
  const double u = 0.7978845608028654 * (v + 0.044715 * v * v * v);
  s.gate[i] = s.R(s.R(0.5 * v * (1 + tanh(u))) * s.up[i]);
}

__global__ void Velocity(State s) {
  const int i = Index(), row = i / 32, o = i % 32;
  const ExpertArgs& a = s.twin.args;
  if (row >= a.horizon) return;
  double sum = a.out_bias[o];
  for (int k = 0; k < kWidth; ++k) {
    sum += static_cast<double>(a.out_weight[o * kWidth + k]) *
           s.n[row * kWidth + k];
  }
  s.out[i] = sum;
  s.x[i] += -1.0f / s.twin.call.steps * sum;
}

__global__ void CopyNoise(State s) {
  const int i = Index();
  if (i < s.twin.args.horizon * 32) s.x[i] = s.twin.args.x[i];
}

int Blocks(long threads) {
  return static_cast<int>((threads + kThreads - 1) / kThreads);
}

void RunProduct(const State& s, const double* in, const __nv_bfloat16* w, int n,
                int k, double* out, int stride) {
  Product<<<Blocks(32L * n), kThreads>>>(s, in, w, n, k, out, stride);
}

void RunLayer(const State& s, int time, int layer) {
  const ExpertLayerWeights& w = s.twin.weights.layers[layer];
  const int elements = Blocks(long{s.rows} * kWidth);
  Norm<<<s.rows, kThreads>>>(s, time, 2 * layer);
  RunProduct(s, s.n, w.q, 2048, kWidth, s.qkv, kQkv);
  RunProduct(s, s.n, w.k, kDim, kWidth, s.qkv + 2048, kQkv);
  RunProduct(s, s.n, w.v, kDim, kWidth, s.qkv + 2304, kQkv);
  Rope<<<Blocks(s.rows * 9L * kHalf), kThreads>>>(s);
  Attention<<<dim3(s.rows, 8), kDim>>>(s, layer);
  RunProduct(s, s.o, w.o, kWidth, 2048, s.y, kWidth);
  Add<<<elements, kThreads>>>(s, time, 2 * layer);
  Norm<<<s.rows, kThreads>>>(s, time, 2 * layer + 1);
  RunProduct(s, s.n, w.gate, kExpertMlp, kWidth, s.gate, kExpertMlp);
  RunProduct(s, s.n, w.up, kExpertMlp, kWidth, s.up, kExpertMlp);
  Glu<<<Blocks(long{s.rows} * kExpertMlp), kThreads>>>(s);
  RunProduct(s, s.gate, w.down, kWidth, kExpertMlp, s.y, kWidth);
  Add<<<elements, kThreads>>>(s, time, 2 * layer + 1);
}

}  // namespace

std::vector<double> RunTwin(const TwinArgs& twin, Rounding rounding) {
  State s{.twin = twin, .rounding = rounding};
  const bool pi0 = twin.args.form == ExpertForm::kPi0;
  const int horizon = twin.args.horizon;
  s.rows = horizon + (pi0 ? 1 : 0);
  double* memory = nullptr;
  const long sizes[] = {2048,      1024 * 64, 1024 * 64, 1024 * 64, kQkv * 64,
                        2048 * 64, 1024 * 64, 4096 * 64, 4096 * 64, 2048};
  double** parts[] = {&s.x, &s.z, &s.h,    &s.n,  &s.qkv,
                      &s.o, &s.y, &s.gate, &s.up, &s.out};
  long total = 0;
  for (const long size : sizes) total += size;
  EXPECT_EQ(cudaMalloc(&memory, total * sizeof(double)), cudaSuccess);
  double* next = memory;
  for (int i = 0; i < 10; ++i) *parts[i] = next, next += sizes[i];
  CopyNoise<<<8, kThreads>>>(s);
  const int steps = twin.call.steps, count = horizon * 32;
  std::vector<double> result((steps + 1) * count);
  for (int step = 0; step < steps; ++step) {
    const int time = twin.call.table_row + step;
    Narrow<<<Blocks(horizon * 1024L), kThreads>>>(s, time);
    if (pi0) SuffixMlp<<<Blocks(s.rows * 1024L), kThreads>>>(s);
    for (int layer = 0; layer < kExpertDepth; ++layer) RunLayer(s, time, layer);
    Norm<<<s.rows, kThreads>>>(s, time, 36);
    Velocity<<<Blocks(count), kThreads>>>(s);
    cudaMemcpy(&result[step * count], s.out, count * sizeof(double),
               cudaMemcpyDeviceToHost);
  }
  cudaMemcpy(&result[steps * count], s.x, count * sizeof(double),
             cudaMemcpyDeviceToHost);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  cudaFree(memory);
  return result;
}

}  // namespace piserve::kernels
