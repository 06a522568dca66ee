// SPDX-License-Identifier: Apache-2.0
// A work item is a head of an image, or half its queries: all 256 keys at once,
// so there is one maximum and no rescaling. Two warpgroups take 64 queries at a
// time: scores in registers by wgmma, softmax there, and p, never leaving
// registers, times v. A CTA takes item after item, with bulk copies of the next
// one under way while it computes. head_dim 72 is 64 columns and a piece of
// eight, which zeros make a multiple of 16 where columns are summed over. Bound
// by latency at one row, by exp2 and wgmma above.
#include <algorithm>
#include <cmath>

#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/processors.h"
#include "model/kernels/tma.cuh"
#include "model/kernels/vision_attention.h"
#include "model/kernels/vision_attention/wgmma.cuh"
#include "model/kernels/warpgroup.cuh"

namespace piserve::kernels {
namespace vision {
namespace {

constexpr int kTokens = 256;
constexpr int kDim = 72;
constexpr int kColumns = 64;  // of a tile; the others are a piece
constexpr int kGroup = 128;   // threads of a warpgroup
constexpr int kGroups = 2;
constexpr int kThreads = kGroups * kGroup;
constexpr int kGroupRows = 64;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kStages = 2;
enum Part { kQuery, kKey, kValue };

// One part of a head, of kCount tokens.
template <int kCount>
struct Head {
  alignas(1024) char tile[kCount * kColumns * 2];
  alignas(128) char piece[kCount * 16];
};

template <int kTasks>
struct Stage {
  Head<kTasks * kRows> q;
  Head<kTokens> k, v;
  std::uint64_t full_qk, full_v;
};
template <int kTasks>
struct Shared {
  Stage<kTasks> stage[kStages];
  alignas(128) char zeros[kTokens * 16];  // behind all: TwoPieces looks ahead
};

// [head_dim, heads, part, tokens] in boxes of a head's tile or piece, of as
// many queries as an item has or of all keys.
struct Maps {
  CUtensorMap q_tile, q_piece, tile, piece;
};

struct Item {
  int head;
  int first_query, first_key;  // tokens of the call
};

template <int kTasks>
__device__ Item ItemAt(const VisionAttentionArgs& a, int index) {
  constexpr int kItemsPerHead = kTokens / (kTasks * kRows);
  const int image = index / kItemsPerHead / a.heads;
  const int part = index % kItemsPerHead;
  return {.head = index / kItemsPerHead % a.heads,
          .first_query = image * kTokens + part * kTasks * kRows,
          .first_key = image * kTokens};
}

// Starts the copies of an item, by one thread.
template <int kTasks>
__device__ void CopyItem(const Maps& maps, const Item& item,
                         Stage<kTasks>& stage) {
  const auto copy = [&](const CUtensorMap& map, char* to, std::uint64_t* full,
                        int column, Part part, int token) {
    CopyBox(map, to, full, column, item.head, part, token);
  };
  constexpr int kTokenBytes = kDim * 2;
  BarrierArriveExpecting(&stage.full_qk,
                         (kTasks * kRows + kTokens) * kTokenBytes);
  copy(maps.q_tile, stage.q.tile, &stage.full_qk, 0, kQuery, item.first_query);
  copy(maps.tile, stage.k.tile, &stage.full_qk, 0, kKey, item.first_key);
  copy(maps.q_piece, stage.q.piece, &stage.full_qk, kColumns, kQuery,
       item.first_query);
  copy(maps.piece, stage.k.piece, &stage.full_qk, kColumns, kKey,
       item.first_key);
  BarrierArriveExpecting(&stage.full_v, kTokens * kTokenBytes);
  copy(maps.tile, stage.v.tile, &stage.full_v, 0, kValue, item.first_key);
  copy(maps.piece, stage.v.piece, &stage.full_v, kColumns, kValue,
       item.first_key);
}

// Of 64 queries from `row` on; the piece is summed with zeros.
template <int kTasks>
__device__ void Scores(const Stage<kTasks>& stage, int row, const char* zeros,
                       float (&s)[128]) {
  const std::uint64_t q = RowsTile(SharedAddress(stage.q.tile + row * 128));
  const std::uint64_t k = RowsTile(SharedAddress(stage.k.tile));
  const std::uint32_t zero = SharedAddress(zeros);
  const std::uint32_t q_piece = SharedAddress(stage.q.piece + row * 16);
  const std::uint32_t k_piece = SharedAddress(stage.k.piece);
  WgmmaFence();
#pragma unroll
  for (int column = 0; column < kColumns; column += 16) {
    Multiply64x256(s, AtColumn(q, 0, column), AtColumn(k, 0, column),
                   column != 0);
  }
  Multiply64x256(s, TwoPieces(q_piece, zero - q_piece),
                 TwoPieces(k_piece, zero - k_piece), true);
  WgmmaCommit();
  WgmmaWait();
}

// A thread's 128 scores are 64 of each of its two rows, in pairs.
__device__ constexpr int ScoreAt(int r, int i) {
  return i / 2 * 4 + 2 * r + i % 2;
}

// Scores to weights in place; the sum of this thread's quarter of each row.
__device__ void Softmax(float (&s)[128], float scale, float (&sum)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float maximum = s[ScoreAt(r, 0)];
#pragma unroll
    for (int i = 1; i < 64; ++i) maximum = fmaxf(maximum, s[ScoreAt(r, i)]);
    maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 1));
    maximum = fmaxf(maximum, __shfl_xor_sync(~0u, maximum, 2));
    const float shift = maximum * scale;
    float total[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      float& score = s[ScoreAt(r, i)];
      score = Exp2(score * scale - shift);
      total[i % 2] += score;
    }
    sum[r] = total[0] + total[1];
  }
}

// out = p v. A fragment of two neighbouring score tiles is one of p.
__device__ void Values(const Head<kTokens>& v, const float (&s)[128],
                       float (&out)[32], float (&last)[4]) {
  const std::uint64_t tile = ColumnsTile(SharedAddress(v.tile), kTokens);
  const std::uint32_t piece = SharedAddress(v.piece);
  std::uint32_t p[kTokens / 16][4];
#pragma unroll
  for (int i = 0; i < kTokens / 4; ++i) {
    p[i / 4][i % 4] = PackPair(s[2 * i], s[2 * i + 1]);
  }
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kTokens; k += 16) {
    Multiply64x64(out, p[k / 16], AtRow(tile, k), k != 0);
    Multiply64x8(last, p[k / 16], PieceRows(piece + k * 16), k != 0);
  }
  WgmmaCommit();
  WgmmaWait();
}

// `token`: the warpgroup's first query.
__device__ void Store(const VisionAttentionArgs& a, int head, int token,
                      const float (&out)[32], const float (&last)[4],
                      const float (&sum)[2]) {
  const int lane = threadIdx.x % 32;
  const long row = token + threadIdx.x % kGroup / 32 * 16 + lane / 4;
  const long stride = static_cast<long>(a.heads) * kDim;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = sum[r] + __shfl_xor_sync(~0u, sum[r], 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float inverse = 1 / total;
    auto* to = reinterpret_cast<std::uint32_t*>(a.out + (row + 8 * r) * stride +
                                                head * kDim + lane % 4 * 2);
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      to[n * 4] = PackPair(out[n * 4 + 2 * r] * inverse,
                           out[n * 4 + 2 * r + 1] * inverse);
    }
    to[kColumns / 2] =
        PackPair(last[2 * r] * inverse, last[2 * r + 1] * inverse);
  }
}

// The queries of a warpgroup's task.
template <int kTasks>
__device__ void Compute(const VisionAttentionArgs& a, const Item& item,
                        Stage<kTasks>& stage, int parity, const char* zeros,
                        int first, float scale) {
  float s[128], out[32], last[4], sum[2];
  BarrierWait(&stage.full_qk, parity);
  Scores(stage, first, zeros, s);
  Softmax(s, scale, sum);
  BarrierWait(&stage.full_v, parity);
  Values(stage.v, s, out, last);
  Store(a, item.head, item.first_query + first, out, last, sum);
}

// Barriers, and the zeros where wgmma sees them.
template <int kTasks>
__device__ void Prepare(Shared<kTasks>& shared) {
  reinterpret_cast<uint4*>(shared.zeros)[threadIdx.x] = {0, 0, 0, 0};
  static_assert(sizeof(shared.zeros) == kThreads * sizeof(uint4));
  FenceForWgmma();
  if (threadIdx.x < kStages) {
    BarrierInit(&shared.stage[threadIdx.x].full_qk, 1);
    BarrierInit(&shared.stage[threadIdx.x].full_v, 1);
    FenceBarrierInit();
  }
  __syncthreads();
}

template <int kTasks>
__global__ void __launch_bounds__(kThreads, 1)
    VisionAttentionKernel(const __grid_constant__ Maps maps,
                          VisionAttentionArgs a, int items, float scale) {
  extern __shared__ char raw[];
  auto& shared = *reinterpret_cast<Shared<kTasks>*>(
      raw + (1024 - SharedAddress(raw) % 1024) % 1024);
  LetNextStart();
  Prepare(shared);
  WaitForPrevious();
  FenceGlobalForCopies();
  const int grid = static_cast<int>(gridDim.x);
  const auto copy = [&](int item, int stage) {
    if (threadIdx.x == 0 && item < items) {
      CopyItem(maps, ItemAt<kTasks>(a, item), shared.stage[stage]);
    }
  };
  for (int i = 0; i < kStages; ++i) copy(blockIdx.x + i * grid, i);
  // From a shuffle the compiler knows that it is one for the whole warp.
  const int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0);
  for (int step = 0;; ++step) {
    const int turn = step / kTasks, task = step % kTasks;
    const int item = blockIdx.x + turn * grid, stage = turn % kStages;
    if (item >= items) return;
    Compute(a, ItemAt<kTasks>(a, item), shared.stage[stage], turn / kStages % 2,
            shared.zeros, (task * kGroups + group) * kGroupRows, scale);
    if (task + 1 < kTasks) continue;
    __syncthreads();  // before the stage is filled again
    copy(item + kStages * grid, stage);
  }
}

// Boxes of `rows` tokens and, in a head, `columns`.
cudaError_t MapOf(const VisionAttentionArgs& a, std::uint32_t rows,
                  std::uint32_t columns, CUtensorMap* map) {
  const std::uint64_t heads = a.heads, head_bytes = kDim * 2;
  const std::uint64_t tokens = static_cast<std::uint64_t>(a.images) * kTokens;
  BoxedTensor t = {
      .data = a.qkv,
      .rank = 4,
      .size = {kDim, heads, 3, tokens},
      .stride_bytes = {head_bytes, heads * head_bytes, 3 * heads * head_bytes},
      .box = {columns, 1, 1, rows}};
  if (columns != kColumns) t.swizzle = Swizzle::kNone;
  return EncodeTensorMap(t, map);
}

template <int kTasks>
cudaError_t MakeMaps(const VisionAttentionArgs& a, Maps* maps) {
  constexpr int kQueries = kTasks * kRows, kRest = kDim - kColumns;
  for (const cudaError_t error : {MapOf(a, kQueries, kColumns, &maps->q_tile),
                                  MapOf(a, kQueries, kRest, &maps->q_piece),
                                  MapOf(a, kTokens, kColumns, &maps->tile),
                                  MapOf(a, kTokens, kRest, &maps->piece)}) {
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// Rounds of 64 queries a warpgroup that the busiest CTA goes through.
int Rounds(int heads, int tasks, int processors) {
  const int items = heads * kTokens / (tasks * kRows);
  return (items + processors - 1) / processors * tasks;
}

template <int kTasks>
cudaError_t LaunchTasks(const VisionAttentionArgs& args, int processors,
                        cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<kTasks>) + 1024;  // and what aligns it
  Maps maps;
  if (cudaError_t e = MakeMaps<kTasks>(args, &maps); e != cudaSuccess) return e;
  // Per device, hence at each launch; allowed while a stream is captured.
  const cudaError_t error =
      cudaFuncSetAttribute(VisionAttentionKernel<kTasks>,
                           cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  const int items = args.images * args.heads * kTokens / (kTasks * kRows);
  LaunchShape shape;
  shape.grid = dim3(std::min(items, processors));
  shape.threads = kThreads;
  shape.shared_bytes = kBytes;
  const float scale = kLog2E / std::sqrt(static_cast<float>(kDim));
  return Launch(VisionAttentionKernel<kTasks>, shape, stream, maps, args, items,
                scale);
}

}  // namespace
}  // namespace vision

bool VisionAttentionSupports(int tokens, int head_dim) {
  return tokens == vision::kTokens && head_dim == vision::kDim;
}

cudaError_t LaunchVisionAttention(const VisionAttentionArgs& args,
                                  cudaStream_t stream) {
  if (!VisionAttentionSupports(args.tokens, args.head_dim) ||
      args.images <= 0 || args.heads <= 0) {
    return cudaErrorInvalidValue;
  }
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  // With two tasks keys and values of a head are copied once.
  const int heads = args.images * args.heads;
  return vision::Rounds(heads, 2, processors) <=
                 vision::Rounds(heads, 1, processors)
             ? vision::LaunchTasks<2>(args, processors, stream)
             : vision::LaunchTasks<1>(args, processors, stream);
}

}  // namespace piserve::kernels
