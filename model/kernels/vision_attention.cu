// SPDX-License-Identifier: Apache-2.0
// A task is 64 queries of a head of an image, against all of its 256 keys: so
// there is one maximum and no rescaling. A CTA goes through a run of tasks, its
// three warpgroups each with one at a time: while one computes exponentials,
// others have the tensor cores. Keys and values of two heads and queries of
// eight tasks lie in shared memory; whoever is the last to need one has its
// place filled again by a bulk copy. A task's result leaves by one too, from
// where its queries lay. head_dim 72 is 64 columns and a piece of eight, which
// zeros make a multiple of 16 where columns are summed over; where they are
// not, ones beside the piece sum the weights.
//
// Bound by latency at one row (three images): 96 of 132 SMs have two tasks
// each, a chain of copies, scores, softmax, values and the copy back. Above, no
// one unit: a task is at least 1280 cycles of tensor cores and 1024 of
// exponentials, which the warpgroups overlap only in part, and 37 kB of memory.
#include <cmath>

#include "model/kernels/launch.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/tma.cuh"
#include "model/kernels/vision_attention.h"
#include "model/kernels/vision_attention/attend.cuh"
#include "model/kernels/vision_attention/fill.cuh"
#include "model/kernels/vision_attention/work.cuh"

namespace piserve::kernels {
namespace vision_attention {
namespace {

__device__ void InitBarriers(const Work& work, Shared& shared) {
  for (std::uint64_t& full : shared.queries_full) BarrierInit(&full, 1);
  for (int i = 0; i < kStages; ++i) {
    BarrierInit(&shared.keys_full[i], 1);
    BarrierInit(&shared.values_full[i], 1);
    shared.keys_left[i] = shared.values_left[i] =
        i == 0 ? MissingWarps(work) : 0;
  }
  FenceBarrierInit();
}

// Barriers, and zeros and ones where wgmma sees them.
__device__ void Prepare(const Work& work, Shared& shared) {
  static_assert(sizeof(shared.zeros) <= kThreads * sizeof(uint4));
  static_assert(sizeof(shared.ones) <= kThreads * 4);
  const unsigned i = threadIdx.x;
  if (i < sizeof(shared.zeros) / sizeof(uint4)) {
    reinterpret_cast<uint4*>(shared.zeros)[i] = {0, 0, 0, 0};
  }
  if (i < sizeof(shared.ones) / 4) {
    reinterpret_cast<std::uint32_t*>(shared.ones)[i] = PackPair(1, 1);
  }
  FenceForWgmma();
  if (threadIdx.x == 0) InitBarriers(work, shared);
  __syncthreads();
}

__global__ void __launch_bounds__(kThreads, 1)
    VisionAttentionKernel(const __grid_constant__ Maps maps, int heads,
                          int tasks, int chunk, float scale) {
  extern __shared__ char raw[];
  auto& shared = *reinterpret_cast<Shared*>(
      raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  LetNextStart();
  if (threadIdx.x == 0) {
    for (const CUtensorMap* map : {&maps.query_tile, &maps.query_piece,
                                   &maps.tile, &maps.piece, &maps.result}) {
      PrefetchTensorMap(*map);
    }
  }
  const Work work = WorkOf(heads, tasks, chunk);
  Prepare(work, shared);
  WaitForPrevious();
  FenceGlobalForCopies();
  if (threadIdx.x == 0) FillAll(maps, work, shared);
  __syncwarp();
  // From a shuffle the compiler knows that it is one for the whole warp.
  const int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0);
  if (group < work.count && work.HeadOf(group) > 0) {
    LetFirstHeadPass(maps, work, shared);
  }
  for (int task = group; task < work.count; task += kGroups) {
    RunTask(maps, work, task, group, scale, shared);
  }
  // Shared memory stays until it has been read.
  if (threadIdx.x % kGroup == 0) WaitForCopiesRead();
}

// qkv in boxes of a head's `columns` of `rows` tokens.
cudaError_t EncodePart(const VisionAttentionArgs& a, std::uint32_t rows,
                       std::uint32_t columns, CUtensorMap* map) {
  const std::uint64_t heads = a.heads;
  const std::uint64_t tokens = static_cast<std::uint64_t>(a.images) * kTokens;
  const BoxedTensor t = {
      .data = a.qkv,
      .rank = 4,
      .size = {kDim, heads, 3, tokens},
      .stride_bytes = {kTokenBytes, heads * kTokenBytes,
                       3 * heads * kTokenBytes},
      .box = {columns, 1, 1, rows},
      .swizzle = columns == kColumns ? Swizzle::k128Bytes : Swizzle::kNone};
  return EncodeTensorMap(t, map);
}

cudaError_t EncodeResult(const VisionAttentionArgs& a, CUtensorMap* map) {
  const std::uint64_t heads = a.heads;
  const std::uint64_t tokens = static_cast<std::uint64_t>(a.images) * kTokens;
  const BoxedTensor t = {.data = a.out,
                         .rank = 3,
                         .size = {kDim, heads, tokens},
                         .stride_bytes = {kTokenBytes, heads * kTokenBytes},
                         .box = {kDim, 1, kRows},
                         .swizzle = Swizzle::kNone};
  return EncodeTensorMap(t, map);
}

cudaError_t EncodeMaps(const VisionAttentionArgs& a, Maps* maps) {
  constexpr int kPiece = kDim - kColumns;
  for (const cudaError_t error :
       {EncodePart(a, kRows, kColumns, &maps->query_tile),
        EncodePart(a, kRows, kPiece, &maps->query_piece),
        EncodePart(a, kTokens, kColumns, &maps->tile),
        EncodePart(a, kTokens, kPiece, &maps->piece),
        EncodeResult(a, &maps->result)}) {
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Runs of tasks as equal as they get, one to a CTA.
cudaError_t LaunchTasks(const VisionAttentionArgs& args, int processors,
                        cudaStream_t stream) {
  Maps maps;
  if (cudaError_t e = EncodeMaps(args, &maps); e != cudaSuccess) return e;
  const int tasks = args.images * args.heads * kTasksPerHead;
  const int chunk = CeilDiv(tasks, processors);
  LaunchShape shape;
  shape.grid = dim3(CeilDiv(tasks, chunk));
  shape.threads = kThreads;
  shape.shared_bytes = kBytesFor<Shared>;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  return Launch(VisionAttentionKernel, shape, stream, maps, args.heads, tasks,
                chunk, scale);
}

}  // namespace
}  // namespace vision_attention

bool VisionAttentionSupports(int tokens, int head_dim) {
  return tokens == vision_attention::kTokens &&
         head_dim == vision_attention::kDim;
}

cudaError_t LaunchVisionAttention(const VisionAttentionArgs& args,
                                  cudaStream_t stream) {
  if (!VisionAttentionSupports(args.tokens, args.head_dim) ||
      args.images <= 0 || args.heads <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return vision_attention::LaunchTasks(args, processors, stream);
}

}  // namespace piserve::kernels
