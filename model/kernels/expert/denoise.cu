// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/expert/attention.cuh"
#include "model/kernels/expert/cache.h"
#include "model/kernels/expert/step.cuh"

// All steps and layers in one grid of 128 blocks, one a multiprocessor. A block
// has two warpgroups that multiply (tokens are the M side, 64 rows; both take
// the same columns and half of k each) and a warp that streams weights and
// cached keys into shared memory. Stages of a layer, and whom a block hears
// from before each:
//
//   QKV        16 or 24 columns, all of k       everyone (residual)
//   attention  head, two key tiles, half of     QKV of its head; the last
//              the value dimensions             tile's also of all keys
//   combine    16 dimensions of the head        8 blocks
//   O          the head's k, 64 columns         16 blocks
//   residual   8 columns                        8 blocks (split k)
//   gate-up    32 columns of each               everyone (residual)
//   down       512 of k, 64 columns             16 blocks
//   residual   8 columns                        8 blocks
//
// What bounds it: these eight dependent exchanges, not the 35 MB of weights a
// layer (7.6 us at HBM speed); before QKV and gate-up, where all blocks fetch
// the residual, L2's bandwidth too. Results travel as tagged packets
// (packet.cuh). The residual stays with its owner in FP32; what travels is x
// times the next norm's gain in bf16 and the sums of squares; the scale 1 / rms
// and, for adaptive norms, the shift's product with the matrix are applied to
// the FP32 accumulator. Every sum has a fixed order.
//
// The rows of a wave, called sequences here because a row is a token, take
// turns in every stage: its weights are read once, and a sequence's exchange
// passes under the others' work. What every further one costs, half a layer's
// time, goes mostly into its own activations and keys, which many blocks read
// from L2 (about 60 MB a layer).
namespace piserve::kernels {
namespace expert {
namespace {

__device__ __forceinline__ void ProduceLayer(Producer& out, const char* cache,
                                             const char* weights, int block,
                                             const int* prefix, int rows) {
  const int groups = GroupCount(block);
  const int quarter = groups * static_cast<int>(kGroupBytes) / 4;
  for (int i = 0; i < 4; ++i) {
    out.Put(weights + i * quarter, quarter, Reuse::kOnce);
  }
  weights += groups * kGroupBytes;
  const int part = block % 16;
  for (int i = 0; i < 2 * rows; ++i) {
    const int tile = (part & ~1) + i % 2;
    if (!TileIsLive(tile, prefix[i / 2])) continue;
    const char* from = cache + (i / 2) * Workspace::kBytes + tile * kTileBytes;
    out.Put(from, kSlotBytes, Reuse::kAgain);
    out.Put(from + kSlotBytes, kSlotBytes, Reuse::kAgain);
    out.Put(from + kTileValues + (part & 1) * kSlotBytes, kSlotBytes,
            Reuse::kAgain);
  }
  constexpr int kRest = (kOutBytes + kGateUpBytes + kDownBytes) / kSlotBytes;
  for (int i = 0; i < kRest; ++i) {
    out.Put(weights + i * kSlotBytes, kSlotBytes, Reuse::kOnce);
  }
}

template <ExpertForm kForm, bool kMany>
__device__ __forceinline__ void Produce(const ExpertArgs& args,
                                        Shared& shared) {
  Producer out(shared.slots, &shared.ring);
  const char* packed = static_cast<const char*>(args.packed);
  const char* cache = static_cast<const char*>(args.workspace);
  const int block = blockIdx.x, rows = kMany ? args.rows : 1;
  const int steps = args.call->steps;
  for (int step = 0; step < steps; ++step) {
    if (kForm == ExpertForm::kPi0) {
      const char* suffix =
          packed + kExpertDepth * kLayerBytes + block * kGroupBytes;
      out.Put(suffix, kGroupBytes / 2, Reuse::kOnce);
      out.Put(suffix + kGroupBytes / 2, kGroupBytes / 2, Reuse::kOnce);
    }
    for (int layer = 0; layer < kExpertDepth; ++layer) {
      ProduceLayer(out, cache + layer * (kTiles * kTileBytes),
                   packed + PackedAt(layer, block), block, shared.prefix, rows);
    }
  }
}

__device__ __forceinline__ Block MakeBlock(const ExpertArgs& args,
                                           Shared& shared) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int group = warp / 4, id = blockIdx.x;
  const int row0 = 16 * (warp % 4) + lane / 4;
  return Block{.args = args,
               .shared = shared,
               .mail = static_cast<char*>(args.workspace),
               .id = id,
               .split = id / 16,
               .part = id % 16,
               .group = group,
               .thread = static_cast<int>(threadIdx.x) % 128,
               .warp = warp,
               .lane = lane,
               .quad = lane % 4,
               .row0 = row0,
               .prefix = shared.prefix[0],
               .horizon = args.horizon,
               .table_row = args.call->table_row,
               .x = {}};
}

// Action i stands at prefix + i, behind Pi0's state token.
__device__ __forceinline__ float2 RopeFactor(const Block& b, int row,
                                             int group) {
  const bool state = b.HasState() && row == b.horizon;
  if (group >= kFirstValueGroup || (row >= b.horizon && !state)) {
    return make_float2(1, 0);
  }
  const int position = b.prefix + (state ? 0 : row + (b.HasState() ? 1 : 0));
  return b.args.rope[position * 128 + RopeDim(group, b.quad)];
}

// The RoPE factors of what this lane finishes of a sequence; always the same.
__device__ __forceinline__ void LoadRope(Block& b) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = b.row0 + 8 * r;
    const int group = GroupOf(b.id, b.group == 0 ? 0 : 2);
    b.rope[r] = RopeFactor(b, row, group);
    b.rope[2 + r] = RopeFactor(b, row, GroupOf(b.id, 1));
  }
}

template <bool kMany>
__device__ __forceinline__ void RunLayer(Block& b, int step, int layer) {
  const int time = b.table_row + step;
  const unsigned in_tag = (step + layer) & 1;  // 19 uses a step
  const unsigned tag = layer & 1;              // 18 uses a step
  const float* shift = b.args.shift == nullptr
                           ? nullptr
                           : b.args.shift +
                                 static_cast<long>(time) * kShiftRow +
                                 layer * kLayerShift;
  ForEachSequence<kMany>(b, [&] {
    if (kMany) LoadRope(b);  // all sequences' would not fit registers
    if (GroupCount(b.id) == 3) {
      Qkv<3>(b, layer, shift, in_tag, tag);
    } else {
      Qkv<2>(b, layer, shift, in_tag, tag);
    }
  });
  ForEachSequence<kMany>(b, [&] { Attend(b, layer, tag); });
  ForEachSequence<kMany>(b, [&] { CombineSplits(b, tag); });
  Refresh(b);
  Modulation m;
  m.Load(b, time, 2 * layer, 2 * layer + 1);
  ForEachSequence<kMany>(b, [&] { ProjectOut(b, tag); });
  ForEachSequence<kMany>(b, [&] {
    AddToResidual(b, b.mail + Workspace::kOutPartial, m, tag);
    SendResidual(b, m, b.mail + Workspace::kMlpIn, b.mail + Workspace::kMlpSums,
                 tag);
  });
  ForEachSequence<kMany>(b, [&] { GateUp(b, shift, tag); });
  Refresh(b);
  m.Load(b, time, 2 * layer + 1, 2 * layer + 2);
  ForEachSequence<kMany>(b, [&] { ProjectDown(b, tag); });
  ForEachSequence<kMany>(b, [&] {
    AddToResidual(b, b.mail + Workspace::kDownPartial, m, tag);
    SendResidual(b, m, b.mail + Workspace::kAttentionIn,
                 b.mail + Workspace::kAttentionSums, in_tag ^ 1);
  });
}

template <ExpertForm kForm, bool kMany>
__device__ __forceinline__ void RunStep(Block& b, int step, int steps) {
  const int time = b.table_row + step;
  b.rows = b.horizon + (b.HasState() && step == 0 ? 1 : 0);
  Modulation m;
  m.Load(b, time, -1, 0);
  ForEachSequence<kMany>(b, [&] {
    if (kForm == ExpertForm::kPi0) {
      EmbedPi0(b, step & 1);
    } else {
      EmbedPi05(b, step & 1);
    }
    SendResidual(b, m, b.mail + Workspace::kAttentionIn,
                 b.mail + Workspace::kAttentionSums, step & 1);
  });
  const int next = step + 1 < steps ? time + 1 : time;
  for (int layer = 0; layer < kExpertDepth; ++layer) {
    if (layer == kExpertDepth - 2) PrefetchStepEnd(b, next);
    RunLayer<kMany>(b, step, layer);
  }
  Refresh(b);
  if (b.id >= b.horizon) return;
  const float* bias = b.args.shift == nullptr
                          ? b.args.out_bias
                          : b.args.shift + static_cast<long>(time) * kShiftRow +
                                kExpertDepth * kLayerShift;
  ForEachSequence<kMany>(b, [&] {
    UpdateActions<kForm>(b, step, steps, time + 1, bias, step & 1);
  });
}

template <ExpertForm kForm, bool kMany>
__global__ void __launch_bounds__(kThreads, 1)
    DenoiseKernel(const __grid_constant__ ExpertArgs args) {
  extern __shared__ __align__(1024) char memory[];
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  const int thread = threadIdx.x;
  if (thread == 0) RingInit(&shared.ring);
  const int rows = kMany ? args.rows : 1;
  if (thread < rows * kExpertActionDim && blockIdx.x < args.horizon) {
    const int row = thread / kExpertActionDim, at = thread % kExpertActionDim;
    shared.x[row][at] =
        args.x[(row * args.horizon + blockIdx.x) * kExpertActionDim + at];
  }
  if (thread < rows) shared.prefix[thread] = args.call[thread].prefix;
  if (kForm == ExpertForm::kPi05 && thread < 256) {
    (&shared.in_weight[0][0])[thread] =
        args.in_weight[blockIdx.x * 256 + thread];
  }
  __syncthreads();
  if (thread >= kMatrixThreads) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCopyRegisters));
    if (thread == kMatrixThreads) Produce<kForm, kMany>(args, shared);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kMatrixRegisters));
    Block b = MakeBlock(args, shared);
    if (!kMany) LoadRope(b);
    const int steps = args.call->steps;
    ForEachSequence<kMany>(b, [&] { SendSuffixRow<kForm>(b, b.table_row, 0); });
    for (int step = 0; step < steps; ++step) {
      RunStep<kForm, kMany>(b, step, steps);
    }
  }
}

bool Complete(const ExpertArgs& a) {
  const bool pi0 = a.form == ExpertForm::kPi0;
  const bool own = pi0 ? a.suffix_bias && a.state_weight && a.state_bias &&
                             a.state && a.shift == nullptr
                       : a.shift != nullptr;
  return own && a.packed && a.norm && a.in_weight && a.in_bias &&
         a.out_weight && a.out_bias && a.rope && a.cache_k && a.cache_v &&
         a.call && a.x && a.workspace;
}

template <ExpertForm kForm, bool kMany>
cudaError_t LaunchDenoise(const ExpertArgs& args, cudaStream_t stream) {
  const auto kernel = DenoiseKernel<kForm, kMany>;
  cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(Shared));
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute cooperative;
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(kBlocks);
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(Shared);
  config.stream = stream;
  config.attrs = &cooperative;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, args);
}

template <ExpertForm kForm>
cudaError_t LaunchRows(const ExpertArgs& args, cudaStream_t stream) {
  return args.rows > 1 ? LaunchDenoise<kForm, true>(args, stream)
                       : LaunchDenoise<kForm, false>(args, stream);
}

}  // namespace
}  // namespace expert

bool ExpertSupports(ExpertForm form, int rows, int horizon, int cache_len) {
  const int tokens = horizon + (form == ExpertForm::kPi0 ? 1 : 0);
  return rows >= 1 && rows <= kExpertMaxRows && horizon >= 1 &&
         cache_len >= 1 &&
         tokens + expert::Overflow(cache_len) <= expert::kTileKeys;
}

std::size_t ExpertWorkspaceBytes(int rows) {
  return rows * expert::Workspace::kBytes;
}

cudaError_t LaunchExpert(const ExpertArgs& args, cudaStream_t stream) {
  if (!ExpertSupports(args.form, args.rows, args.horizon, args.cache_len) ||
      !expert::Complete(args)) {
    return cudaErrorInvalidValue;
  }
  const cudaError_t error = expert::LaunchArrangeCache(args, stream);
  if (error != cudaSuccess) return error;
  return args.form == ExpertForm::kPi0
             ? expert::LaunchRows<ExpertForm::kPi0>(args, stream)
             : expert::LaunchRows<ExpertForm::kPi05>(args, stream);
}

}  // namespace piserve::kernels
