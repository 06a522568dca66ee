// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/image.h"
#include "model/kernels/launch.cuh"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPartsOfAPatchRow = 4;

// One column of a patch, from the strip of pixel rows that it shares.
__device__ float PixelOf(const PatchifyArgs& a, const std::uint8_t* strip,
                         int patch, int column) {
  const int area = a.patch * a.patch;
  if (column >= 3 * area) return 0;
  const int y = column % area / a.patch;
  const int x = patch * a.patch + column % a.patch;
  return strip[(y * a.image + x) * 3 + column / area];
}

// A few blocks a row of patches: each stages the `patch` pixel rows they share
// in shared memory, so that HBM sees whole lines on both sides, and writes a
// part of the patches.
__global__ void __launch_bounds__(kThreads) PatchifyKernel(PatchifyArgs a) {
  extern __shared__ __align__(16) std::uint8_t strip[];  // [patch, image, 3]
  LetNextStart();
  WaitForPrevious();
  const int grid = a.image / a.patch;
  const int slot = blockIdx.x / grid;  // of rows * slots
  const int patch_row = blockIdx.x % grid;
  const int row = slot / a.slots;
  const int camera = slot % a.slots;
  const bool live = camera * grid * grid < a.image_len[row];
  const int strip_bytes = a.patch * a.image * 3;
  if (live) {
    const std::uint8_t* image =
        a.pixels +
        (static_cast<long>(*a.row_base + row) * a.cameras + camera) * a.image *
            a.image * 3 +
        static_cast<long>(patch_row) * strip_bytes;
    if (strip_bytes % 16 == 0) {
      for (int i = threadIdx.x * 16; i < strip_bytes; i += kThreads * 16) {
        *reinterpret_cast<uint4*>(strip + i) =
            *reinterpret_cast<const uint4*>(image + i);
      }
    } else {
      for (int i = threadIdx.x; i < strip_bytes; i += kThreads) {
        strip[i] = image[i];
      }
    }
  }
  __syncthreads();
  __nv_bfloat16* out =
      a.patches +
      (static_cast<long>(slot) * grid * grid + patch_row * grid) * a.pitch;
  const int first = blockIdx.y * kThreads + threadIdx.x;
  const int stride = gridDim.y * kThreads * 8;
  for (int i = first * 8; i < grid * a.pitch; i += stride) {
    float value[8] = {};
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (live) value[k] = PixelOf(a, strip, i / a.pitch, i % a.pitch + k);
    }
    Store8(out + i, value);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddPositionKernel(const float* conv, const float* position,
                      __nv_bfloat16* out, long total, long period) {
  LetNextStart();
  WaitForPrevious();
  const long i = (static_cast<long>(blockIdx.x) * kThreads + threadIdx.x) * 8;
  if (i >= total) return;
  float x[8], p[8];
  Load8(conv + i, x);
  Load8(position + i % period, p);
#pragma unroll
  for (int k = 0; k < 8; ++k) x[k] += p[k];
  Store8(out + i, x);
}

}  // namespace

cudaError_t LaunchPatchify(const PatchifyArgs& args, cudaStream_t stream) {
  const int grid = args.image / args.patch;
  const int shared = args.patch * args.image * 3;
  if (args.image % args.patch != 0 || shared > 48 * 1024 ||
      args.pitch < 3 * args.patch * args.patch || args.pitch % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  LaunchShape shape;
  shape.grid = dim3(args.rows * args.slots * grid, kPartsOfAPatchRow);
  shape.threads = kThreads;
  shape.shared_bytes = shared;
  return Launch(PatchifyKernel, shape, stream, args);
}

cudaError_t LaunchAddPosition(const float* conv, const float* position,
                              __nv_bfloat16* out, int images, int patches,
                              int width, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(images) * patches * width;
  const long blocks = (total / 8 + kThreads - 1) / kThreads;
  LaunchShape shape;
  shape.grid = dim3(static_cast<unsigned>(blocks));
  shape.threads = kThreads;
  return Launch(AddPositionKernel, shape, stream, conv, position, out, total,
                static_cast<long>(patches) * width);
}

}  // namespace piserve::kernels
