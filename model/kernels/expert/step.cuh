// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/layer.cuh"

// What happens once a denoising step: suffix embedding, action projection and
// Euler update. Block i < H keeps token i of each x_t and works on that row.
namespace piserve::kernels::expert {

__device__ __forceinline__ float Dot4(float4 a, float4 b) {
  return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w;
}

__device__ __forceinline__ float4 LoadFloats(const float* p) {
  return __ldg(reinterpret_cast<const float4*>(p));
}

__device__ __forceinline__ float Silu(float v) {
  return __fdividef(v, 1 + __expf(-v));
}

// Row `row` of a [.., 32] matrix times a 32-vector in shared memory.
__device__ __forceinline__ float Dot32(const float* row, const float* x) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < kExpertActionDim; k += 4) {
    sum += Dot4(LoadFloats(row + k), *reinterpret_cast<const float4*>(x + k));
  }
  return sum;
}

// A x for this block's token, all 1024 of them to `sums`: eight lanes take a
// row of A, so that whole lines are read.
__device__ __forceinline__ void MultiplyIn(const Block& b, float* sums) {
  const int k = 4 * (b.lane & 7), first = b.warp * 128 + b.lane / 8;
  const float4 x = *reinterpret_cast<const float4*>(b.shared.x[b.sequence] + k);
  const float* a = b.args.in_weight + first * kExpertActionDim + k;
#pragma unroll 8
  for (int i = 0; i < 32; ++i) {
    float sum = Dot4(LoadFloats(a + 4 * i * kExpertActionDim), x);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    sum += __shfl_xor_sync(~0u, sum, 4);
    if ((b.lane & 7) == 0) sums[first + 4 * i] = sum;
  }
}

// Sends what the suffix of this block's token is made from: Pi0's
// z = silu(A x + c) in bf16, Pi0.5's x itself.
__device__ __forceinline__ void SendSuffixRow(const Block& b, int time_row,
                                              unsigned tag) {
  const int thread = b.warp * 32 + b.lane;
  if (b.id >= b.horizon) return;
  char* to = b.mail + Workspace::kSuffix;
  if (!b.HasState()) {
    if (thread < 8) {
      const float* x = b.shared.x[b.sequence] + 4 * thread;
      StorePacket(to + (b.id * 8 + thread) * 16,
                  TagFloats(*reinterpret_cast<const float4*>(x), tag));
    }
    return;
  }
  float* sums = reinterpret_cast<float*>(b.shared.middle);
  MultiplyIn(b, sums);
  SyncMatrixThreads();
  if (thread >= kExpertWidth / 8) return;
  const float* c = b.args.in_bias + time_row * kExpertWidth + 8 * thread;
  float z[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) z[i] = Silu(sums[8 * thread + i] + __ldg(c + i));
  StorePacket(to + PacketAt(thread, b.id),
              make_uint4(PackTagged(z[0], z[1], tag), PackPair(z[2], z[3]),
                         PackPair(z[4], z[5]), PackPair(z[6], z[7])));
}

// Brings what the end of a step reads back into L2, which the layers' weights
// have swept: every block 1 KB of each matrix and a part of the next c.
__device__ __forceinline__ void PrefetchStepEnd(const Block& b, int time_row) {
  const int thread = b.warp * 32 + b.lane;
  const auto prefetch = [](const float* p) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
  };
  const int at = (b.id * 8 + (thread & 7)) * 32;
  if (thread < 8) prefetch(b.args.out_weight + at);
  if (thread >= 8 && thread < 16) prefetch(b.args.in_weight + at);
  if (b.HasState() && thread == 16 && b.id < 32) {
    prefetch(b.args.in_bias + time_row * kExpertWidth + b.id * 32);
  }
}

// This block's 8 columns of suffix_mlp_out z; each warpgroup half of k.
__device__ __forceinline__ void MultiplySuffix(Block& b, unsigned tag,
                                               float (&d)[4]) {
  const int slot = b.slot + b.group;
  const char* from = b.mail + Workspace::kSuffix +
                     b.group * (kRows * kExpertWidth) + b.quad * 16;
  const char* low = Opaque(from + (b.row0 < b.horizon ? b.row0 * 64 : 0));
  const char* high =
      Opaque(from + (b.row0 + 8 < b.horizon ? b.row0 * 64 + 512 : 0));
  WaitFull(&b.shared.ring, slot);
  const Operand weights(SlotAddress(b, slot), 128, 128);
#pragma unroll 1
  for (int batch = 0; batch < 2; ++batch) {
    uint4 z[16];
    const auto address = [&](int i) {
      return ((i & 1) == 0 ? low : high) + (i >> 1) * (kRows * 64);
    };
    AwaitFirst(b, address(b.lane >> 1), tag);
    Receive(z, address, tag);
    low += 8 * (kRows * 64), high += 8 * (kRows * 64);
    __syncwarp();
    WgmmaFence();
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      const uint4 u = z[2 * k], v = z[2 * k + 1];
      Wgmma(d, Fragment{{u.x, v.x, u.y, v.y}},
            weights.After(batch * 4096 + k * 512));
      Wgmma(d, Fragment{{u.z, v.z, u.w, v.w}},
            weights.After(batch * 4096 + k * 512 + 256));
    }
    WgmmaCommit();
    WgmmaWait<0>();
  }
  if (!b.last) return;
  ReleaseSlot(b, slot);
  b.slot += 2;
}

// Pi0: suffix = suffix_mlp_out z + bias for the actions; at the first step also
// the state token, behind them.
__device__ __forceinline__ void EmbedPi0(Block& b, unsigned tag) {
  float d[4] = {};
  MultiplySuffix(b, tag, d);
  float* sums = reinterpret_cast<float*>(b.shared.wide) + b.group * 512;
  *reinterpret_cast<float2*>(sums + b.row0 * 8 + 2 * b.quad) =
      make_float2(d[0], d[1]);
  *reinterpret_cast<float2*>(sums + (b.row0 + 8) * 8 + 2 * b.quad) =
      make_float2(d[2], d[3]);
  SyncMatrixThreads();
  const float4* in = reinterpret_cast<const float4*>(b.shared.wide) +
                     b.OwnRow() * 2 + b.OwnHalf();
  const float4 u = in[0], v = in[128];
  const float4 bias = LoadFloats(b.args.suffix_bias + b.OwnColumn());
  b.SetResidual(make_float4(u.x + v.x + bias.x, u.y + v.y + bias.y,
                            u.z + v.z + bias.z, u.w + v.w + bias.w));
  if (b.rows > b.horizon && b.OwnRow() == b.horizon) {
    const float* w = b.args.state_weight + b.OwnColumn() * kExpertActionDim;
    const float4 s = LoadFloats(b.args.state_bias + b.OwnColumn());
    const float* state = b.args.state + b.sequence * kExpertActionDim;
    b.SetResidual(make_float4(Dot32(w, state) + s.x,
                              Dot32(w + kExpertActionDim, state) + s.y,
                              Dot32(w + 2 * kExpertActionDim, state) + s.z,
                              Dot32(w + 3 * kExpertActionDim, state) + s.w));
  }
}

// Pi0.5: suffix = W x + b.
__device__ __forceinline__ void EmbedPi05(Block& b, unsigned tag) {
  const int late = b.lane & 1;
  const int own = b.OwnRow() < b.rows ? b.OwnRow() : 0;
  const char* row =
      Opaque(b.mail + Workspace::kSuffix + (own * 8 + 4 * late) * 16);
  uint4 x[4];
  Receive(
      x, [&](int i) { return row + i * 16; }, tag);
  __syncwarp();
  float sum[4];
#pragma unroll
  for (int c = 0; c < 4; ++c) {
    const float* w = b.shared.in_weight[4 * b.OwnHalf() + c] + 16 * late;
    sum[c] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[c] +=
          Dot4(AsFloats(x[i]), *reinterpret_cast<const float4*>(w + 4 * i));
    }
    sum[c] += __shfl_xor_sync(~0u, sum[c], 1);
  }
  const float4 bias = LoadFloats(b.args.in_bias + b.OwnColumn());
  b.SetResidual(make_float4(sum[0] + bias.x, sum[1] + bias.y, sum[2] + bias.z,
                            sum[3] + bias.w));
}

// This block's row behind the last norm, before its scale, to shared.wide; the
// sums of squares behind it.
__device__ __forceinline__ void ReceiveRow(const Block& b, unsigned tag) {
  const int thread = b.warp * 32 + b.lane;
  float* row = reinterpret_cast<float*>(b.shared.wide);
  uint4 v[1];
  const int tile = b.id >> 4, lower = (b.id >> 3) & 1;
  const char* from =
      b.mail + Workspace::kAttentionIn +
      FragmentAt(thread >> 2, tile, 4 * (b.id & 7) + (thread & 3));
  Receive(
      v, [&](int) { return from; }, tag);
  const float2 first = UnpackBf16(lower == 0 ? v[0].x : v[0].y);
  const float2 second = UnpackBf16(lower == 0 ? v[0].z : v[0].w);
  reinterpret_cast<float4*>(row)[thread] =
      make_float4(first.x, first.y, second.x, second.y);
  if (thread < kBlocks) {
    from = b.mail + Workspace::kAttentionSums + SumsAt(b.id >> 2, thread);
    Receive(
        v, [&](int) { return from; }, tag);
    const float4 f = AsFloats(v[0]);
    const int i = b.id & 3;
    row[kExpertWidth + thread] = i == 0   ? f.x
                                 : i == 1 ? f.y
                                 : i == 2 ? f.z
                                          : f.w;
  }
}

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int m = 16; m > 0; m /= 2) v += __shfl_xor_sync(~0u, v, m);
  return v;
}

// v = out_weight norm(h) + bias and x += dt v for this block's token. A warp
// takes four of the 32 outputs.
__device__ __forceinline__ void UpdateActions(const Block& b, int step,
                                              int steps, const float* bias,
                                              unsigned tag) {
  SyncMatrixThreads();  // shared.wide is free
  ReceiveRow(b, tag);
  SyncMatrixThreads();
  const float* row = reinterpret_cast<const float*>(b.shared.wide);
  const float square = WarpSum(
      row[kExpertWidth + b.lane] + row[kExpertWidth + 32 + b.lane] +
      row[kExpertWidth + 64 + b.lane] + row[kExpertWidth + 96 + b.lane]);
  const float scale = rsqrtf(square * (1.0f / kExpertWidth) + 1e-6f);
  float sum[4] = {};
#pragma unroll
  for (int k = 0; k < kExpertWidth; k += 128) {
    const float4 h = *reinterpret_cast<const float4*>(row + k + 4 * b.lane);
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      sum[o] +=
          Dot4(h, LoadFloats(b.args.out_weight +
                             (4 * b.warp + o) * kExpertWidth + k + 4 * b.lane));
    }
  }
#pragma unroll
  for (int o = 0; o < 4; ++o) sum[o] = WarpSum(sum[o]);
  if (b.lane < 4) {
    const int o = 4 * b.warp + b.lane;
    const float s = b.lane == 0   ? sum[0]
                    : b.lane == 1 ? sum[1]
                    : b.lane == 2 ? sum[2]
                                  : sum[3];
    const float v = s * scale + bias[o];
    const float dt = __fdiv_rn(-1.0f, static_cast<float>(steps));
    float& x = b.shared.x[b.sequence][o];
    x = __fadd_rn(x, __fmul_rn(dt, v));
    const int chunk = b.horizon * kExpertActionDim;
    const int at = b.id * kExpertActionDim + o;
    if (b.args.velocity != nullptr) {
      b.args.velocity[(b.sequence * steps + step) * chunk + at] = v;
    }
    if (step == steps - 1) b.args.x[b.sequence * chunk + at] = x;
  }
  SyncMatrixThreads();
}

}  // namespace piserve::kernels::expert
