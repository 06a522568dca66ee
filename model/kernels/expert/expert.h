// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace piserve::kernels {

// All denoising steps of a few robots' calls as one persistent kernel: suffix
// embedding, 18 expert layers, final norm, action projection and Euler update.
// For the registered expert only: width 1024, depth 18, MLP 4096, 8 query heads
// and 1 KV head of 256, 32 action dimensions. What it computes: docs/pi0.md
// 2.7 to 2.12; how, and what bounds it: denoise.cu.

inline constexpr int kExpertDepth = 18;
inline constexpr int kExpertWidth = 1024;
inline constexpr int kExpertMlp = 4096;
inline constexpr int kExpertNorms = 37;  // two a layer and the final one
inline constexpr int kExpertActionDim = 32;
inline constexpr int kExpertMaxRows = 4;       // robots in a launch
inline constexpr int kExpertProcessors = 128;  // that a launch fills

enum class ExpertForm {
  kPi0,   // RMSNorm; a state token; time enters through the suffix MLP
  kPi05,  // adaptive RMSNorm; no state token
};

// Whether one launch can hold these sizes: tokens and prefix must fit 16 tiles
// of 64 keys, of which the last one belongs to the suffix. Pi0 at horizon 50
// takes up to 973 cached keys, Pi0.5 up to 974. 1 <= rows <= kExpertMaxRows.
bool ExpertSupports(ExpertForm form, int rows, int horizon, int cache_len);

// How the rows of gate and up lie.
enum class GateUpRows {
  kSeparate,  // output by output
  kPacked,    // in one matrix, as GegluGateRow says; `up` is not used
};

// One layer's matrices, row-major [out, in] bf16 on the device.
struct ExpertLayerWeights {
  const __nv_bfloat16* q = nullptr;     // [2048, 1024]
  const __nv_bfloat16* k = nullptr;     // [256, 1024]
  const __nv_bfloat16* v = nullptr;     // [256, 1024]
  const __nv_bfloat16* o = nullptr;     // [1024, 2048]
  const __nv_bfloat16* gate = nullptr;  // [4096, 1024]; packed: [8192, 1024]
  const __nv_bfloat16* up = nullptr;    // [4096, 1024]
  const __nv_bfloat16* down = nullptr;  // [1024, 4096]
  GateUpRows gate_up = GateUpRows::kSeparate;
};

struct ExpertWeights {
  ExpertLayerWeights layers[kExpertDepth];
  // Pi0's action_time_mlp_out [1024, 1024] bf16; null for Pi0.5.
  const __nv_bfloat16* suffix_mlp_out = nullptr;
};

// Bytes of the packed weights (625 MB): once a model.
std::size_t ExpertPackedBytes();

// Rearranges the matrices into the order in which each block reads them. Values
// do not change. `packed` is 128-byte aligned; the sources may go afterwards.
cudaError_t LaunchExpertPack(const ExpertWeights& weights, void* packed,
                             cudaStream_t stream);

// Pi0.5: bytes of the shift table of `rows` time steps (0.77 MB each).
std::size_t ExpertShiftBytes(int rows);

struct ExpertShiftArgs {
  ExpertWeights weights;
  const float* modulation = nullptr;  // as ExpertArgs::norm, Pi0.5
  const float* out_weight = nullptr;  // as in ExpertArgs
  const float* out_bias = nullptr;
  int rows = 0;
  float* shift = nullptr;  // ExpertShiftBytes(rows)
};

// Pi0.5: what each norm's shift adds behind the next matrix, W shift, in FP32;
// once a model, for all time steps of all step counts.
cudaError_t LaunchExpertShift(const ExpertShiftArgs& args, cudaStream_t stream);

// What may differ from one replay of a captured launch to the next; read from
// device memory.
struct ExpertCall {
  std::int32_t prefix = 0;     // valid cached keys, 1 .. cache_len
  std::int32_t steps = 0;      // n; dt = -1/n
  std::int32_t table_row = 0;  // of step 0 in the per-step tables
};

struct ExpertArgs {
  ExpertForm form = ExpertForm::kPi0;
  int rows = 1;       // B
  int horizon = 0;    // H
  int cache_len = 0;  // keys of a row's cache

  const void* packed = nullptr;  // LaunchExpertPack

  // Pi0: [37, 1024], the checkpoint's w (the gain is 1 + w).
  // Pi0.5: [rows, 37, 3072], scale, shift and gate of every time step.
  const float* norm = nullptr;
  const float* shift = nullptr;  // Pi0.5: LaunchExpertShift; Pi0: null

  // Pi0: A [1024, 32], the action half of action_time_mlp_in times
  // action_in_proj, and in_bias [rows, 1024], everything else in that sum at
  // this time step: z = silu(A x + c), suffix = suffix_mlp_out z + suffix_bias.
  // Pi0.5: action_in_proj itself, in_bias [1024].
  const float* in_weight = nullptr;
  const float* in_bias = nullptr;
  const float* suffix_bias = nullptr;  // Pi0: [1024]

  // Pi0: suffix row of the state = state_weight state + state_bias.
  const float* state_weight = nullptr;  // [1024, 32]
  const float* state_bias = nullptr;    // [1024]
  const float* state = nullptr;         // [B, 32]

  const float* out_weight = nullptr;  // [32, 1024]
  const float* out_bias = nullptr;    // [32]

  const float2* rope = nullptr;  // [cache_len + H + 1, 128] (cos, sin)

  // Layer l's keys (after RoPE) and values of row r: [cache_len, 256] bf16 at
  // + l * cache_stride + r * row_stride elements. Keys from `prefix` on are not
  // read into any sum, whatever they hold.
  const __nv_bfloat16* cache_k = nullptr;
  const __nv_bfloat16* cache_v = nullptr;
  long cache_stride = 0;
  long row_stride = 0;

  // [B], on the device; `steps` and `table_row` are the first row's.
  const ExpertCall* call = nullptr;

  float* x = nullptr;  // [B, H, 32] noise on entry, actions on return
  // Null, or [B, steps, H, 32]: every v_t, for tests.
  float* velocity = nullptr;

  void* workspace = nullptr;  // ExpertWorkspaceBytes(B), 1024-byte aligned
};

// Bytes of scratch (27 MB a row). One launch at a time; contents need not
// survive between launches nor be initialised.
std::size_t ExpertWorkspaceBytes(int rows);

// Enqueues two kernels: one arranges the cache, the other, cooperative, fills
// 128 multiprocessors with one block each (about 220 KB of shared memory, so
// nothing else that needs shared memory runs beside it there) and runs until
// the last step is done. A 132-processor part has four left for others. May be
// captured. All sums have a fixed order: the same inputs give the same bits,
// and a row's do not depend on the others' nor on how many there are.
//
// A block that waits for another one's result longer than about two seconds
// stops the kernel with an illegal address, so that a fault cannot spin for
// ever: the context is lost then, as after any device fault.
//
// cudaErrorInvalidValue for sizes that ExpertSupports refuses or a missing
// pointer; cudaErrorCooperativeLaunchTooLarge where the grid cannot be resident
// at once (fewer than 128 multiprocessors).
cudaError_t LaunchExpert(const ExpertArgs& args, cudaStream_t stream);

}  // namespace piserve::kernels
