// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/block.cuh"

// Multiplying all tokens by a block's slice of a matrix.
namespace piserve::kernels::expert {

// A warpgroup's share of x W^T: 4 kBatches * 32 columns of packets, batch i the
// 128 columns from 128 * chunk(i). Weights: batch i in slot slot(i) from byte
// offset(i); last(i) where a slot's last batch is i. `between` runs while the
// matrix units work.
template <int kGroups, int kBatches, typename Chunk, typename SlotOf,
          typename Offset, typename Last, typename Between>
__device__ __forceinline__ void Multiply(const Block& b, const char* packets,
                                         unsigned tag, Chunk chunk, SlotOf slot,
                                         Offset offset, Last last,
                                         Between between,
                                         float (&d)[4 * kGroups]) {
  const bool live0 = b.row0 < b.rows, live1 = b.row0 + 8 < b.rows;
  const char* base = packets + (b.row0 * 4 + b.quad) * 16;
  const auto live = [&](int i) { return (i & 1) == 0 ? live0 : live1; };
  const auto address = [&](int batch, int i) {
    return base + (4 * chunk(batch) + (i >> 1)) * (kRows * 64) + (i & 1) * 512;
  };
  uint4 a[kBatches][8];
  if (live0) {  // wait on one packet, not on all
    uint4 first[1];
    Receive(
        first, [&](int) { return address(0, 0); }, [](int) { return true; },
        tag);
  }
#pragma unroll
  for (int i = 0; i < kBatches; ++i) {
    Request(
        a[i], [&](int k) { return address(i, k); }, live);
  }
#pragma unroll
  for (int i = 0; i < 4 * kGroups; ++i) d[i] = 0;
  constexpr int kStride = kGroups * 128;
#pragma unroll
  for (int i = 0; i < kBatches; ++i) {
    Settle(
        a[i], [&](int k) { return address(i, k); }, live, tag);
    WaitFull(&b.shared.ring, slot(i));
    __syncwarp();
    const std::uint32_t weights = SlotAddress(b, slot(i)) + offset(i);
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      Wgmma(d, FragmentOf(a[i][k & ~1], a[i][k | 1], k & 1),
            Descriptor(weights + k * 2 * kStride, kStride, 128));
    }
    WgmmaCommit();
    if (i > 0) {
      WgmmaWait<1>();
      if (last(i - 1)) ReleaseSlot(b, slot(i - 1));
    }
    if (i == (kBatches - 1) / 2) between();
  }
  WgmmaWait<0>();
  ReleaseSlot(b, slot(kBatches - 1));
}

// Where blocks leave, by token, the sum of squares of their 8 columns of the
// residual: [row / 4][block] packets of four rows.
__device__ __forceinline__ int SumsAt(int row4, int block) {
  return (row4 * kBlocks + block) * 16;
}

// 1 / rms of every token into shared.scale; a half-warp takes four tokens.
struct Scales {
  uint4 v[8];

  __device__ __forceinline__ const char* Address(const Block& b,
                                                 const char* sums,
                                                 int i) const {
    return sums + SumsAt(2 * b.warp + b.lane / 16, b.lane % 16 + 16 * i);
  }
  __device__ __forceinline__ bool Live(const Block& b) const {
    return 4 * (2 * b.warp + b.lane / 16) < b.rows;
  }
  __device__ __forceinline__ void Ask(const Block& b, const char* sums) {
    Request(
        v, [&](int i) { return Address(b, sums, i); },
        [&](int) { return Live(b); });
  }
  __device__ __forceinline__ void Finish(const Block& b, const char* sums,
                                         unsigned tag) {
    Settle(
        v, [&](int i) { return Address(b, sums, i); },
        [&](int) { return Live(b); }, tag);
    __syncwarp();
    float4 sum = AsFloats(v[0]);
#pragma unroll
    for (int i = 1; i < 8; ++i) {
      const float4 f = AsFloats(v[i]);
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
    const auto scale = [](float s) {
      return rsqrtf(s * (1.0f / kExpertWidth) + 1e-6f);
    };
    *reinterpret_cast<float4*>(
        &b.shared.scale[4 * (2 * b.warp + b.lane / 16)]) =
        make_float4(scale(sum.x), scale(sum.y), scale(sum.z), scale(sum.w));
  }
};

}  // namespace piserve::kernels::expert
