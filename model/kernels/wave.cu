// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/launch.cuh"
#include "model/kernels/wave.h"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
// More, with one load a thread, are slower: the bus serves few at once.
constexpr int kBlocksPerCamera = 16;

__device__ int LiveBefore(const std::uint8_t* mask, int camera) {
  int live = 0;
  for (int i = 0; i < camera; ++i) live += mask[i] != 0;
  return live;
}

__device__ void CopyImage(const LoadWaveArgs& a, int row, int camera) {
  const std::uint8_t* mask = a.camera_mask + row * a.cameras;
  if (mask[camera] == 0) return;
  const long image = a.image_bytes;
  const auto* from = reinterpret_cast<const uint4*>(
      a.pixels + (static_cast<long>(row) * a.cameras + camera) * image);
  auto* to = reinterpret_cast<uint4*>(
      a.to.pixels +
      (static_cast<long>(row) * a.cameras + LiveBefore(mask, camera)) * image);
  const int stride = kBlocksPerCamera * kThreads;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < a.image_bytes / 16;
       i += stride) {
    to[i] = from[i];
  }
}

__device__ void CopyRest(const LoadWaveArgs& a, int row) {
  const bool real = row < a.rows;
  for (int i = threadIdx.x; i < a.max_tokens; i += kThreads) {
    a.to.tokens[static_cast<long>(row) * a.max_tokens + i] =
        real ? a.tokens[static_cast<long>(row) * a.max_tokens + i] : 0;
  }
  if (real) {
    for (int i = threadIdx.x; i < a.action_dim; i += kThreads) {
      a.to.state[row * a.action_dim + i] = a.state[row * a.action_dim + i];
    }
    for (int i = threadIdx.x; i < a.action_elements; i += kThreads) {
      const long at = static_cast<long>(row) * a.action_elements + i;
      a.to.x[at] = a.noise[at];
    }
  }
  if (threadIdx.x != 0) return;
  const int live =
      real ? LiveBefore(a.camera_mask + row * a.cameras, a.cameras) : 0;
  // One key at least: a softmax over none is no number.
  const int prompt = real ? a.token_count[row] : 1;
  a.to.image_len[row] = live * a.image_tokens;
  a.to.prefix_len[row] = live * a.image_tokens + prompt;
  if (row == 0) {
    *a.row_base = 0;
    *a.step = a.first_step;
  }
  if (a.call != nullptr && row < kExpertMaxRows) {
    a.call[row] = {a.to.prefix_len[row], a.steps, a.first_step};
  }
}

// Blocks (x, camera, row); those of the last camera index past the end copy the
// small inputs.
__global__ void __launch_bounds__(kThreads) LoadWaveKernel(LoadWaveArgs a) {
  const int row = blockIdx.z;
  const int camera = blockIdx.y;
  if (camera < a.cameras) {
    if (row < a.rows) CopyImage(a, row, camera);
  } else if (blockIdx.x == 0) {
    CopyRest(a, row);
  }
}

__global__ void __launch_bounds__(kThreads)
    BeginMicroWaveKernel(WaveInput wave, int* next, int rows, int cache_len,
                         MicroWave to) {
  const int base = *next;
  __syncthreads();
  for (int i = threadIdx.x; i <= rows; i += kThreads) {
    to.key_start[i] = (base + i) * cache_len;
    if (i == rows) break;
    to.image_len[i] = wave.image_len[base + i];
    to.prefix_len[i] = wave.prefix_len[base + i];
  }
  if (threadIdx.x == 0) {
    *to.row_base = base;
    *next = base + rows;
  }
}

__global__ void AdvanceKernel(int* step) {
  LetNextStart();
  WaitForPrevious();
  *step += 1;
}

}  // namespace

cudaError_t LaunchLoadWave(const LoadWaveArgs& args, cudaStream_t stream) {
  if (args.image_bytes % 16 != 0) return cudaErrorInvalidValue;
  const dim3 grid(kBlocksPerCamera, args.cameras + 1, args.padded_rows);
  LoadWaveKernel<<<grid, kThreads, 0, stream>>>(args);
  return cudaGetLastError();
}

cudaError_t LaunchBeginMicroWave(const WaveInput& wave, int* next, int rows,
                                 int cache_len, MicroWave to,
                                 cudaStream_t stream) {
  BeginMicroWaveKernel<<<1, kThreads, 0, stream>>>(wave, next, rows, cache_len,
                                                   to);
  return cudaGetLastError();
}

cudaError_t LaunchAdvance(int* step, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = dim3(1);
  shape.threads = 1;
  return Launch(AdvanceKernel, shape, stream, step);
}

}  // namespace piserve::kernels
