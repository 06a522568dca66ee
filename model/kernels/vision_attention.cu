// SPDX-License-Identifier: Apache-2.0
// A work item is a head of an image, or half its queries: all 256 keys at once,
// so there is one maximum and no rescaling. Two warpgroups take 64 queries at a
// time: scores in registers by wgmma, softmax there, and p, never leaving
// registers, times v. A CTA takes item after item and copies the next one while
// it computes; a piece of zeros makes head_dim 72 a multiple of 16. Bound by
// latency at one row, by exp2 and wgmma above.
#include <algorithm>
#include <cmath>

#include "model/kernels/launch.cuh"
#include "model/kernels/mma.cuh"
#include "model/kernels/vision_attention.h"
#include "model/kernels/vision_wgmma.cuh"
#include "model/kernels/warpgroup.cuh"

namespace piserve::kernels {
namespace vision {
namespace {

constexpr int kTokens = 256;
constexpr int kDim = 72;
constexpr int kPieces = kDim / 8;  // of 16 bytes
constexpr int kGroup = 128;        // threads of a warpgroup
constexpr int kGroups = 2;
constexpr int kThreads = kGroups * kGroup;
constexpr int kGroupRows = 64;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kStages = 2;
constexpr float kLog2E = 1.4426950408889634f;

// Pieces of kCount tokens. 16 bytes more than they need part them, so that the
// pieces of a token lie in different banks.
template <int kCount>
struct Pieces {
  static constexpr int kStride = kCount * 16 + 16;
  alignas(16) char piece[kPieces][kStride];
};

template <int kTasks>
struct Stage {
  Pieces<kTasks * kRows> q;
  Pieces<kTokens> k, v;
};
template <int kTasks>
struct Shared {
  Stage<kTasks> stage[kStages];
  alignas(16) char zeros[kTokens * 16];  // behind all: strides are positive
};

struct Item {
  const __nv_bfloat16* q;  // of the item's first query
  const __nv_bfloat16* k;  // of the image's first key
  const __nv_bfloat16* v;
  __nv_bfloat16* out;
  long in_stride, out_stride;  // from token to token, elements
};

template <int kTasks>
__device__ Item ItemAt(const VisionAttentionArgs& a, int index) {
  constexpr int kItemsPerHead = kTokens / (kTasks * kRows);
  const int part = index % kItemsPerHead,
            head = index / kItemsPerHead % a.heads;
  const long image = index / kItemsPerHead / a.heads;
  const long inner = static_cast<long>(a.heads) * kDim;
  const long token = image * kTokens, first = part * kTasks * kRows;
  Item item;
  item.in_stride = 3 * inner;
  item.out_stride = inner;
  item.k = a.qkv + token * item.in_stride + inner + head * kDim;
  item.v = item.k + inner;
  item.q = item.k - inner + first * item.in_stride;
  item.out = a.out + (token + first) * inner + head * kDim;
  return item;
}

// Starts the copy of kCount tokens, neighbouring lanes taking neighbouring
// pieces.
template <int kCount>
__device__ void CopyTokens(const __nv_bfloat16* from, long stride,
                           Pieces<kCount>& to) {
#pragma unroll 3
  for (int i = threadIdx.x; i < kCount * kPieces; i += kThreads) {
    const int piece = i % kPieces, row = i / kPieces;
    CopyAsync16(to.piece[piece] + row * 16, from + row * stride + piece * 8,
                true);
  }
}

// Two groups of copies: q and k, then v.
template <int kTasks>
__device__ void CopyItem(const Item& item, Stage<kTasks>& stage) {
  CopyTokens(item.q, item.in_stride, stage.q);
  CopyTokens(item.k, item.in_stride, stage.k);
  CopyAsyncCommit();
  CopyTokens(item.v, item.in_stride, stage.v);
  CopyAsyncCommit();
}

// All of this CTA's copies but the youngest kPending groups are visible to
// wgmma.
template <int kPending>
__device__ void AwaitCopies() {
  CopyAsyncWait<kPending>();
  FenceForWgmma();
  __syncthreads();
}

// Of 64 queries from `q` on; the last piece is summed with zeros.
__device__ void Scores(std::uint32_t q, int q_stride, std::uint32_t k,
                       std::uint32_t zeros, float (&s)[128]) {
  constexpr int kStride = Pieces<kTokens>::kStride, kLast = kPieces - 1;
  WgmmaFence();
#pragma unroll
  for (int piece = 0; piece < kLast; piece += 2) {
    Multiply64x256(s, ColumnsSummed(q + piece * q_stride, q_stride),
                   ColumnsSummed(k + piece * kStride, kStride), piece != 0);
  }
  q += kLast * q_stride;
  k += kLast * kStride;
  Multiply64x256(s, ColumnsSummed(q, zeros - q), ColumnsSummed(k, zeros - k),
                 true);
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

__device__ std::uint32_t PackPair(float a, float b) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// out = p v. A fragment of two neighbouring score tiles is one of p.
__device__ void Values(std::uint32_t v, const float (&s)[128],
                       float (&out)[36]) {
  std::uint32_t p[kTokens / 16][4];
#pragma unroll
  for (int i = 0; i < kTokens / 4; ++i) {
    p[i / 4][i % 4] = PackPair(s[2 * i], s[2 * i + 1]);
  }
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kTokens / 16; ++k) {
    Multiply64x72(out, p[k],
                  RowsSummed(v + k * 16 * 16, Pieces<kTokens>::kStride),
                  k != 0);
  }
  WgmmaCommit();
  WgmmaWait();
}

// `first`: the warpgroup's first query in the item.
__device__ void Store(const Item& item, int first, const float (&out)[36],
                      const float (&sum)[2]) {
  const int lane = threadIdx.x % 32;
  const int row = first + threadIdx.x % kGroup / 32 * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float total = sum[r] + __shfl_xor_sync(~0u, sum[r], 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float inverse = 1 / total;
    __nv_bfloat16* to =
        item.out + (row + 8 * r) * item.out_stride + lane % 4 * 2;
#pragma unroll
    for (int n = 0; n < kPieces; ++n) {
      *reinterpret_cast<std::uint32_t*>(to + n * 8) = PackPair(
          out[n * 4 + 2 * r] * inverse, out[n * 4 + 2 * r + 1] * inverse);
    }
  }
}

template <int kTasks>
__device__ void Compute(const Item& item, const Stage<kTasks>& stage,
                        const char* zeros, int group, float scale) {
  const std::uint32_t k = SharedAddress(&stage.k), v = SharedAddress(&stage.v);
#pragma unroll 1
  for (int task = 0; task < kTasks; ++task) {
    const int first = (task * kGroups + group) * kGroupRows;
    float s[128], out[36], sum[2];
    if (task == 0) AwaitCopies<3>();
    Scores(SharedAddress(&stage.q) + first * 16, stage.q.kStride, k,
           SharedAddress(zeros), s);
    Softmax(s, scale, sum);
    if (task == 0) AwaitCopies<2>();
    Values(v, s, out);
    Store(item, first, out, sum);
  }
}

template <int kTasks>
__global__ void __launch_bounds__(kThreads, 1)
    VisionAttentionKernel(VisionAttentionArgs a, int items, float scale) {
  extern __shared__ __align__(128) char raw[];
  auto& shared = *reinterpret_cast<Shared<kTasks>*>(raw);
  LetNextStart();
  reinterpret_cast<uint4*>(shared.zeros)[threadIdx.x] = {0, 0, 0, 0};
  static_assert(sizeof(shared.zeros) == kThreads * sizeof(uint4));
  WaitForPrevious();
  CopyItem(ItemAt<kTasks>(a, blockIdx.x), shared.stage[0]);
  // From a shuffle the compiler knows that it is one for the whole warp.
  const int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0);
  for (int item = blockIdx.x, turn = 0; item < items; ++turn) {
    const int next = item + gridDim.x;
    if (next < items) {
      CopyItem(ItemAt<kTasks>(a, next), shared.stage[(turn + 1) % kStages]);
    } else {
      CopyAsyncCommit();
      CopyAsyncCommit();
    }
    Compute(ItemAt<kTasks>(a, item), shared.stage[turn % kStages], shared.zeros,
            group, scale);
    item = next;
    __syncthreads();  // before the stage is filled again
  }
}

// Rounds of 64 queries a warpgroup that the busiest CTA goes through.
int Rounds(int heads, int tasks, int processors) {
  const int items = heads * kTokens / (tasks * kRows);
  return (items + processors - 1) / processors * tasks;
}

template <int kTasks>
cudaError_t LaunchTasks(const VisionAttentionArgs& args, int processors,
                        cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<kTasks>);
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
  return Launch(VisionAttentionKernel<kTasks>, shape, stream, args, items,
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
  int device = 0, processors = 0;
  if (cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  if (cudaError_t e = cudaDeviceGetAttribute(
          &processors, cudaDevAttrMultiProcessorCount, device);
      e != cudaSuccess) {
    return e;
  }
  // With two tasks keys and values of a head are copied once.
  const int heads = args.images * args.heads;
  return vision::Rounds(heads, 2, processors) <=
                 vision::Rounds(heads, 1, processors)
             ? vision::LaunchTasks<2>(args, processors, stream)
             : vision::LaunchTasks<1>(args, processors, stream);
}

}  // namespace piserve::kernels
