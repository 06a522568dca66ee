// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "model/kernels/expert/expert.h"

namespace piserve::kernels {

// Sizes of the arrays that hold a wave's inputs on the device.
struct WaveInput {
  std::uint8_t* pixels =
      nullptr;  // [.., cameras, image_bytes], live ones first
  std::int32_t* tokens = nullptr;  // [.., max_tokens]
  float* state = nullptr;          // [.., action_dim]
  float* x = nullptr;              // [.., action_elements]: noise, then actions
  int* image_len = nullptr;        // [..], live cameras * image_tokens
  int* prefix_len = nullptr;       // [..], image_len + prompt tokens
};

struct LoadWaveArgs {
  // As the host filled them, in memory that the device can read (pinned host
  // memory too): [rows, cameras, image_bytes], [rows, cameras], ...
  const std::uint8_t* pixels = nullptr;
  const std::uint8_t* camera_mask = nullptr;
  const std::int32_t* tokens = nullptr;
  const std::int32_t* token_count = nullptr;
  const float* state = nullptr;
  const float* noise = nullptr;
  WaveInput to;
  int* row_base = nullptr;  // set to 0: the first micro-wave's row
  int* step = nullptr;      // set to `first_step`
  // Null, or set: the first kExpertMaxRows rows, for the kernel that runs all
  // steps of so few.
  ExpertCall* call = nullptr;
  int first_step = 0;
  int steps = 0;
  int rows = 0;
  int padded_rows = 0;  // >= rows; the others get an empty prefix
  int cameras = 0;
  int image_bytes = 0;  // a multiple of 16
  int image_tokens = 0;
  int max_tokens = 0;
  int action_dim = 0;
  int action_elements = 0;
};

// Takes a wave's inputs over into the arrays that the graphs read, the live
// cameras of a row moved to the front; every pixel crosses the bus once. Bound
// by the bus.
cudaError_t LaunchLoadWave(const LoadWaveArgs& args, cudaStream_t stream);

struct MicroWave {
  int* row_base = nullptr;    // [1], the micro-wave's first row
  int* image_len = nullptr;   // [rows]
  int* prefix_len = nullptr;  // [rows]
  int* key_start = nullptr;   // [rows + 1], row_base + i times cache_len
};

// Copies what the next micro-wave's kernels read, from row *next on, and moves
// *next behind it. One small block.
cudaError_t LaunchBeginMicroWave(const WaveInput& wave, int* next, int rows,
                                 int cache_len, MicroWave to,
                                 cudaStream_t stream);

// *step += 1.
cudaError_t LaunchAdvance(int* step, cudaStream_t stream);

}  // namespace piserve::kernels
