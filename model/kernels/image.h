// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace piserve::kernels {

struct PatchifyArgs {
  // uint8 RGB [.., cameras, image, image, 3]; the first row is *row_base. The
  // live cameras of a row come first.
  const std::uint8_t* pixels = nullptr;
  const int* row_base = nullptr;
  const int* image_len = nullptr;  // [rows], live cameras * patches an image
  // [rows * slots * patches, pitch]; column c * patch^2 + ky * patch + kx holds
  // the pixel itself, 0..255, which bf16 represents exactly; zero in columns
  // past 3 * patch^2 and in slots without a camera.
  __nv_bfloat16* patches = nullptr;
  int rows = 0;
  int cameras = 0;
  int slots = 0;  // cameras a row that the graph has room for
  int image = 0;  // px a side
  int patch = 0;  // px a side
  int pitch = 0;  // >= 3 * patch^2, a multiple of 8
};

// Cuts images into the operand of the patch convolution seen as a GEMM. The
// pixel's u / 255 * 2 - 1 is left to the GEMM: W (2u/255 - 1) + b is
// (2/255) W u + (b - sum W), so no pixel is rounded. Bound by HBM.
cudaError_t LaunchPatchify(const PatchifyArgs& args, cudaStream_t stream);

// out = bf16(conv + position of the row's patch):
//   conv      [images * patches, width] FP32
//   position  [patches, width] FP32, the convolution's bias - sum W included
//   out       [images * patches, width]
cudaError_t LaunchAddPosition(const float* conv, const float* position,
                              __nv_bfloat16* out, int images, int patches,
                              int width, cudaStream_t stream);

}  // namespace piserve::kernels
