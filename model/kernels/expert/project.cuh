// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/block.cuh"

// Multiplying all tokens by a block's slice of a matrix.
namespace piserve::kernels::expert {

// Bytes of 128 columns of fragments: one batch.
inline constexpr int kChunkBytes = 8 * kStepBytes;

// A warpgroup's share of x W^T: batch i is the 128 columns from 128 * chunk(i)
// on, from `matrix`. Weights: batch i in slot slot(i) from byte offset(i);
// last(i) where a slot's last batch is i. `scales` are received beside x.
template <int kGroups, int kBatches, typename Chunk, typename SlotOf,
          typename Offset, typename Last, typename Scales>
__device__ __forceinline__ void Multiply(const Block& b, const char* matrix,
                                         unsigned tag, Chunk chunk, SlotOf slot,
                                         Offset offset, Last last,
                                         Scales& scales,
                                         float (&d)[4 * kGroups]) {
  const char* from = Fragments(b, matrix);
  const auto address = [&](int batch, int k) {
    return from + chunk(batch) * kChunkBytes + k * kStepBytes;
  };
  if (Scales::kWaits) {
    scales.Ask(b, tag);
  } else {
    AwaitFirst(b, address(b.warp % kBatches, b.lane >> 2), tag);
  }
  uint4 a[kBatches][8];
#pragma unroll
  for (int i = 0; i < kBatches; ++i) {
    Request(a[i], [&](int k) { return address(i, k); });
  }
  scales.Finish(b, tag);
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) d[i] = 0;
  constexpr int kStride = kGroups * 128;
#pragma unroll
  for (int i = 0; i < kBatches; ++i) {
    Settle(
        a[i], [&](int k) { return address(i, k); }, tag);
    WaitFull(&b.shared.ring, slot(i));
    __syncwarp();
    const Operand weights(SlotAddress(b, slot(i)) + offset(i), kStride, 128);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      Wgmma(d, AsFragment(a[i][k]), weights.After(k * 2 * kStride));
    }
    WgmmaCommit();
    if (i > 0) {
      WgmmaWait<1>();
      if (b.last && last(i - 1)) ReleaseSlot(b, slot(i - 1));
    }
  }
  WgmmaWait<0>();
  if (b.last) ReleaseSlot(b, slot(kBatches - 1));
}

// Where blocks leave, by token, the sum of squares of their 8 columns of the
// residual: [row / 4][block] packets of four rows.
__device__ __forceinline__ int SumsAt(int row4, int block) {
  return (row4 * kBlocks + block) * 16;
}

// 1 / rms of every token into shared.scale; a half-warp takes four tokens. Also
// the wait for the residual itself: an owner sends its sums last.
class ResidualScales {
 public:
  static constexpr bool kWaits = true;

  __device__ __forceinline__ ResidualScales(const Block& b, const char* sums) {
    row4_ = 2 * b.warp + b.lane / 16;
    from_ = Opaque(sums + SumsAt(4 * row4_ < b.rows ? row4_ : 0, b.lane % 16));
  }
  __device__ __forceinline__ void Ask(const Block& b, unsigned tag) {
    AwaitFirst(b, Address(b.warp), tag);
    SyncMatrixThreads();  // now all owners have been heard from
    Request(v_, [&](int i) { return Address(i); });
  }
  __device__ __forceinline__ void Finish(const Block& b, unsigned tag) {
    Settle(
        v_, [&](int i) { return Address(i); }, tag);
    __syncwarp();
    float4 sum = AsFloats(v_[0]);
#pragma unroll
    for (int i = 1; i < 8; ++i) {
      const float4 f = AsFloats(v_[i]);
      sum.x += f.x, sum.y += f.y, sum.z += f.z, sum.w += f.w;
    }
#pragma unroll
    for (int m = 1; m < 16; m *= 2) {
      sum.x += __shfl_xor_sync(~0u, sum.x, m);
      sum.y += __shfl_xor_sync(~0u, sum.y, m);
      sum.z += __shfl_xor_sync(~0u, sum.z, m);
      sum.w += __shfl_xor_sync(~0u, sum.w, m);
    }
    if (b.lane % 16 != 0) return;
    *reinterpret_cast<float4*>(&b.shared.scale[4 * row4_]) =
        make_float4(Scale(sum.x), Scale(sum.y), Scale(sum.z), Scale(sum.w));
  }

 private:
  __device__ __forceinline__ const char* Address(int i) const {
    return from_ + i * 256;
  }
  __device__ __forceinline__ static float Scale(float squares) {
    return rsqrtf(squares * (1.0f / kExpertWidth) + 1e-6f);
  }

  int row4_;
  const char* from_;
  uint4 v_[8];
};

// Nothing to scale by.
struct NoScales {
  static constexpr bool kWaits = false;

  __device__ __forceinline__ void Ask(const Block&, unsigned) {}
  __device__ __forceinline__ void Finish(const Block&, unsigned) {}
};

}  // namespace piserve::kernels::expert
