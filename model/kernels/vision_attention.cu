// SPDX-License-Identifier: Apache-2.0
// A work item is half the queries of one head of one image: all 256 keys at
// once, so there is one maximum and no rescaling. Two warpgroups take 64
// queries each: scores in registers by wgmma, softmax there, and p, never
// leaving registers, times v. A CTA takes item after item and copies the next
// one while it computes; head_dim 72 becomes 80 with zeros in shared memory.
// Bound by latency at one row, by exp2 and wgmma above.
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
constexpr int kPaddedPieces = 10;
constexpr int kGroup = 128;  // threads of a warpgroup
constexpr int kGroups = 2;
constexpr int kThreads = kGroups * kGroup;
constexpr int kGroupRows = 64;
constexpr int kRows = kGroups * kGroupRows;
constexpr int kItemsPerHead = kTokens / kRows;
constexpr int kStages = 2;
constexpr float kLog2E = 1.4426950408889634f;

struct Stage {
  alignas(128) char q[kPaddedPieces][kRows][16];
  alignas(128) char k[kPaddedPieces][kTokens][16];
  alignas(128) char v[kPieces][kTokens][16];
};
struct Shared {
  Stage stage[kStages];
};

struct Item {
  const __nv_bfloat16* q;  // of the item's first query
  const __nv_bfloat16* k;  // of the image's first key
  const __nv_bfloat16* v;
  __nv_bfloat16* out;
  long in_stride, out_stride;  // from token to token, elements
};

__device__ Item ItemAt(const VisionAttentionArgs& a, int index) {
  const int half = index % kItemsPerHead,
            head = index / kItemsPerHead % a.heads;
  const long image = index / kItemsPerHead / a.heads;
  const long inner = static_cast<long>(a.heads) * kDim;
  Item item;
  item.in_stride = 3 * inner;
  item.out_stride = inner;
  const long token = image * kTokens;
  item.k = a.qkv + token * item.in_stride + inner + head * kDim;
  item.v = item.k + inner;
  item.q = item.k - inner + half * kRows * item.in_stride;
  item.out = a.out + (token + half * kRows) * inner + head * kDim;
  return item;
}

// Starts the copy of kCount tokens. Eight lanes write 128 bytes in a row.
template <int kCount>
__device__ void CopyTokens(const __nv_bfloat16* from, long stride,
                           char (*to)[kCount][16]) {
#pragma unroll 3
  for (int i = threadIdx.x; i < kCount * kPieces; i += kThreads) {
    const int piece = i / 8 % kPieces, row = i / (8 * kPieces) * 8 + i % 8;
    CopyAsync16(to[piece][row], from + row * stride + piece * 8, true);
  }
}

// Two groups of copies: q and k, then v.
__device__ void CopyItem(const Item& item, Stage& stage) {
  CopyTokens<kRows>(item.q, item.in_stride, stage.q);
  CopyTokens<kTokens>(item.k, item.in_stride, stage.k);
  CopyAsyncCommit();
  CopyTokens<kTokens>(item.v, item.in_stride, stage.v);
  CopyAsyncCommit();
}

// The columns past head_dim, which no copy touches.
__device__ void ZeroPadding(Shared& shared) {
  for (Stage& stage : shared.stage) {
    for (int i = threadIdx.x; i < kTokens; i += kThreads) {
      const uint4 zero = {0, 0, 0, 0};
      *reinterpret_cast<uint4*>(stage.k[kPieces][i]) = zero;
      if (i < kRows) *reinterpret_cast<uint4*>(stage.q[kPieces][i]) = zero;
    }
  }
}

// All of this CTA's copies but the youngest kPending groups are visible to
// wgmma.
template <int kPending>
__device__ void AwaitCopies() {
  CopyAsyncWait<kPending>();
  FenceForWgmma();
  __syncthreads();
}

__device__ void Scores(const Stage& stage, int group, float (&s)[128]) {
  const std::uint32_t q = SharedAddress(stage.q[0][group * kGroupRows]);
  const std::uint32_t k = SharedAddress(stage.k);
  WgmmaFence();
#pragma unroll
  for (int piece = 0; piece < kPaddedPieces; piece += 2) {
    Multiply64x256(s, ColumnsSummed(q + piece * kRows * 16, kRows),
                   ColumnsSummed(k + piece * kTokens * 16, kTokens),
                   piece != 0);
  }
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
__device__ void Values(const Stage& stage, const float (&s)[128],
                       float (&out)[36]) {
  const std::uint32_t v = SharedAddress(stage.v);
  std::uint32_t p[kTokens / 16][4];
#pragma unroll
  for (int i = 0; i < kTokens / 4; ++i) {
    p[i / 4][i % 4] = PackPair(s[2 * i], s[2 * i + 1]);
  }
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < kTokens / 16; ++k) {
    Multiply64x72(out, p[k], RowsSummed(v + k * 16 * 16, kTokens), k != 0);
  }
  WgmmaCommit();
  WgmmaWait();
}

__device__ void Store(const Item& item, const float (&out)[36],
                      const float (&sum)[2]) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * 16 + lane / 4;
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

__global__ void __launch_bounds__(kThreads, 1)
    VisionAttentionKernel(VisionAttentionArgs a, int items, float scale) {
  extern __shared__ __align__(128) char raw[];
  auto& shared = *reinterpret_cast<Shared*>(raw);
  LetNextStart();
  ZeroPadding(shared);
  WaitForPrevious();
  CopyItem(ItemAt(a, blockIdx.x), shared.stage[0]);
  // From a shuffle the compiler knows that it is one for the whole warp.
  const int group = __shfl_sync(~0u, threadIdx.x / kGroup, 0);
  for (int item = blockIdx.x, turn = 0; item < items; ++turn) {
    const Stage& stage = shared.stage[turn % kStages];
    const int next = item + gridDim.x;
    if (next < items) {
      CopyItem(ItemAt(a, next), shared.stage[(turn + 1) % kStages]);
    } else {
      CopyAsyncCommit();
      CopyAsyncCommit();
    }
    float s[128], out[36], sum[2];
    AwaitCopies<3>();
    Scores(stage, group, s);
    Softmax(s, scale, sum);
    AwaitCopies<2>();
    Values(stage, s, out);
    Store(ItemAt(a, item), out, sum);
    item = next;
    __syncthreads();  // before the stage is filled again
  }
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
  // Per device, hence at each launch; allowed while a stream is captured.
  if (cudaError_t e = cudaFuncSetAttribute(
          vision::VisionAttentionKernel,
          cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(vision::Shared));
      e != cudaSuccess) {
    return e;
  }
  const int items = args.images * args.heads * vision::kItemsPerHead;
  LaunchShape shape;
  shape.grid = dim3(std::min(items, processors));
  shape.threads = vision::kThreads;
  shape.shared_bytes = sizeof(vision::Shared);
  const float scale =
      vision::kLog2E / std::sqrt(static_cast<float>(vision::kDim));
  return Launch(vision::VisionAttentionKernel, shape, stream, args, items,
                scale);
}

}  // namespace piserve::kernels
