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
    scales.Ask(b, chunk(b.warp & 3), tag);
  } else {
    AwaitFirst(b, address(b.warp % kBatches, b.lane >> 2), tag);
  }
  uint4 a[kBatches][8];
#pragma unroll
  for (int i = 0; i < kBatches; ++i) {
    Request(a[i], [&](int k) { return address(i, k); });
  }
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
  scales.Finish(b, tag);
  WgmmaWait<0>();
  if (b.last) ReleaseSlot(b, slot(kBatches - 1));
}

// Where blocks leave, by token, the sum of squares of their 8 columns of the
// residual: [group of 8 rows][block] packets of bf16. Their errors move 1 / rms
// by 2^-9 at most, where one block has nearly all of it, else by less. Group g
// has rows 16 (g / 2) + 4 (g % 2) .. + 3 and those 8 further: what a warp owns.
__device__ __forceinline__ int SumsAt(int group8, int block) {
  return (group8 * kBlocks + block) * 16;
}
__device__ __forceinline__ int SumsRow(int group8) {
  return 16 * (group8 >> 1) + 4 * (group8 & 1);
}
__device__ __forceinline__ int SumsGroup(int row) {
  return 2 * (row >> 4) + ((row >> 2) & 1);
}

__device__ __forceinline__ float InverseRms(float squares) {
  return rsqrtf(squares * (1.0f / kExpertWidth) + 1e-6f);
}

// 1 / rms of every token into shared.scale; a warp takes eight tokens. Also the
// wait for the residual itself: an owner sends its sums last.
class ResidualScales {
 public:
  static constexpr bool kWaits = true;

  // The warpgroup's first chunk of the residual's columns.
  __device__ __forceinline__ ResidualScales(const Block& b, const char* sums,
                                            int first_chunk)
      : first_chunk_(first_chunk) {
    const int group8 = SumsRow(b.warp) < b.rows ? b.warp : 0;
    from_ = Opaque(sums + SumsAt(group8, 0));
  }
  // A warp hears from the 16 owners of a chunk, its warpgroup so from all that
  // it will multiply.
  __device__ __forceinline__ void Ask(const Block& b, int chunk, unsigned tag) {
    const int owner = 16 * (first_chunk_ + chunk) + (b.lane & 15);
    AwaitFirst(b, from_ + SumsAt(0, owner), tag);
    SyncWarpgroup(b);
    from_ += SumsAt(0, b.lane);
    Request(v_, [&](int i) { return Address(i); });
  }
  __device__ __forceinline__ void Finish(const Block& b, unsigned tag) {
    Settle(
        v_, [&](int i) { return Address(i); }, tag);
    __syncwarp();
    float sum[8] = {};
#pragma unroll
    for (const uint4& v : v_) {
      const std::uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const float2 f = UnpackBf16(words[k]);
        sum[2 * k] += f.x, sum[2 * k + 1] += f.y;
      }
    }
    // Half of the rows each time, until a lane has one.
#pragma unroll
    for (int m = 16, n = 4; n > 0; m /= 2, n /= 2) {
      const bool high = (b.lane & m) != 0;
#pragma unroll
      for (int k = 0; k < n; ++k) {
        const float mine = high ? sum[k + n] : sum[k];
        const float other = high ? sum[k] : sum[k + n];
        sum[k] = mine + __shfl_xor_sync(~0u, other, m);
      }
    }
    sum[0] += __shfl_xor_sync(~0u, sum[0], 1);
    sum[0] += __shfl_xor_sync(~0u, sum[0], 2);
    if ((b.lane & 3) == 0) {
      const int row = b.lane >> 2;
      b.shared.scale[SumsRow(b.warp) + (row & 3) + 2 * (row & 4)] =
          InverseRms(sum[0]);
    }
    __syncwarp();
  }

 private:
  __device__ __forceinline__ const char* Address(int i) const {
    return from_ + SumsAt(0, 32 * i);
  }

  const int first_chunk_;
  const char* from_;
  uint4 v_[kBlocks / 32];
};

// Nothing to scale by.
struct NoScales {
  static constexpr bool kWaits = false;

  __device__ __forceinline__ void Ask(const Block&, int, unsigned) {}
  __device__ __forceinline__ void Finish(const Block&, unsigned) {}
};

}  // namespace piserve::kernels::expert
