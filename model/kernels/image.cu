// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/image.h"
#include "model/kernels/vector.cuh"

namespace piserve::kernels {
namespace {

constexpr int kThreads = 256;

// One block a row of patches: it stages the `patch` pixel rows they share in
// shared memory, so that HBM sees whole lines on both sides.
__global__ void __launch_bounds__(kThreads) PatchifyKernel(PatchifyArgs a) {
  extern __shared__ std::uint8_t strip[];  // [patch, image, 3]
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
    for (int i = threadIdx.x; i < strip_bytes; i += kThreads)
      strip[i] = image[i];
  }
  __syncthreads();
  const int area = a.patch * a.patch;
  __nv_bfloat16* out =
      a.patches +
      (static_cast<long>(slot) * grid * grid + patch_row * grid) * a.pitch;
  for (int i = threadIdx.x; i < grid * a.pitch; i += kThreads) {
    const int patch = i / a.pitch;
    const int column = i % a.pitch;
    float value = 0;
    if (live && column < 3 * area) {
      const int channel = column / area;
      const int y = column % area / a.patch;
      const int x = patch * a.patch + column % a.patch;
      value = strip[(y * a.image + x) * 3 + channel];
    }
    out[i] = __float2bfloat16_rn(value);
  }
}

__global__ void __launch_bounds__(kThreads)
    AddPositionKernel(const float* conv, const float* position,
                      __nv_bfloat16* out, long total, long period) {
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
      args.pitch < 3 * args.patch * args.patch) {
    return cudaErrorInvalidValue;
  }
  PatchifyKernel<<<args.rows * args.slots * grid, kThreads, shared, stream>>>(
      args);
  return cudaGetLastError();
}

cudaError_t LaunchAddPosition(const float* conv, const float* position,
                              __nv_bfloat16* out, int images, int patches,
                              int width, cudaStream_t stream) {
  if (width % 8 != 0) return cudaErrorInvalidValue;
  const long total = static_cast<long>(images) * patches * width;
  const long blocks = (total / 8 + kThreads - 1) / kThreads;
  AddPositionKernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
      conv, position, out, total, static_cast<long>(patches) * width);
  return cudaGetLastError();
}

}  // namespace piserve::kernels
