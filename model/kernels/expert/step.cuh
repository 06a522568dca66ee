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

// This lane's share of A: of 32 rows four columns. Eight lanes take a row, so
// that whole lines are read.
struct InWeights {
  float4 row[32];

  __device__ __forceinline__ static int First(const Block& b) {
    return b.warp * 128 + b.lane / 8;
  }
  // Not before `after` is known: what that takes needs the registers.
  __device__ __forceinline__ void Load(const Block& b, float after = 0) {
    const float* a =
        b.args.in_weight + First(b) * kExpertActionDim + 4 * (b.lane & 7);
    asm volatile("" : "+l"(a) : "f"(after));
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      row[i] = LoadFloats(a + 4 * i * kExpertActionDim);
    }
  }
};

// A x for this block's token, all 1024 of them to `sums`.
__device__ __forceinline__ void MultiplyIn(const Block& b, const InWeights& a,
                                           float* sums) {
  const float4 x = *reinterpret_cast<const float4*>(b.shared.x[b.sequence] +
                                                    4 * (b.lane & 7));
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    float sum = Dot4(a.row[i], x);
    sum += __shfl_xor_sync(~0u, sum, 1);
    sum += __shfl_xor_sync(~0u, sum, 2);
    sum += __shfl_xor_sync(~0u, sum, 4);
    if ((b.lane & 7) == 0) sums[InWeights::First(b) + 4 * i] = sum;
  }
}

// Pi0: sends z = silu(A x + c) of this block's token in bf16.
__device__ __forceinline__ void SendMixed(const Block& b, const InWeights& a,
                                          int time_row, unsigned tag) {
  const int thread = b.warp * 32 + b.lane;
  float* sums = reinterpret_cast<float*>(b.shared.middle);
  const bool sends = thread < kExpertWidth / 8;
  const float* c =
      b.args.in_bias + time_row * kExpertWidth + (sends ? 8 * thread : 0);
  const float4 low = LoadFloats(c), high = LoadFloats(c + 4);
  MultiplyIn(b, a, sums);
  SyncMatrixThreads();
  if (!sends) return;
  const float bias[8] = {low.x,  low.y,  low.z,  low.w,
                         high.x, high.y, high.z, high.w};
  float z[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) z[i] = Silu(sums[8 * thread + i] + bias[i]);
  StorePacket(b.mail + Workspace::kSuffix + PacketAt(thread, b.id),
              make_uint4(PackTagged(z[0], z[1], tag), PackPair(z[2], z[3]),
                         PackPair(z[4], z[5]), PackPair(z[6], z[7])));
}

// Pi0.5: sends x of this block's token.
__device__ __forceinline__ void SendActions(const Block& b, unsigned tag) {
  const int thread = b.warp * 32 + b.lane;
  if (thread >= 8) return;
  const float* x = b.shared.x[b.sequence] + 4 * thread;
  StorePacket(b.mail + Workspace::kSuffix + (b.id * 8 + thread) * 16,
              TagFloats(*reinterpret_cast<const float4*>(x), tag));
}

// Sends what the suffix of this block's token is made from.
template <ExpertForm kForm>
__device__ __forceinline__ void SendSuffixRow(const Block& b, int time_row,
                                              unsigned tag) {
  if (b.id >= b.horizon) return;
  if constexpr (kForm == ExpertForm::kPi0) {
    InWeights a;
    a.Load(b);
    SendMixed(b, a, time_row, tag);
  } else {
    SendActions(b, tag);
  }
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
  // All rows' ends of the last step are known now: what the next stage polls
  // cannot be what its slots held two uses before (packet.cuh).
  SyncMatrixThreads();
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
    from = b.mail + Workspace::kAttentionSums + SumsAt(SumsGroup(b.id), thread);
    Receive(
        v, [&](int) { return from; }, tag);
    const std::uint32_t low = (b.id & 8) == 0 ? v[0].x : v[0].z;
    const std::uint32_t high = (b.id & 8) == 0 ? v[0].y : v[0].w;
    const float2 pair = UnpackBf16((b.id & 2) == 0 ? low : high);
    row[kExpertWidth + thread] = (b.id & 1) == 0 ? pair.x : pair.y;
  }
}

__device__ __forceinline__ float WarpSum(float v) {
#pragma unroll
  for (int m = 16; m > 0; m /= 2) v += __shfl_xor_sync(~0u, v, m);
  return v;
}

// This lane's share of out_weight: a warp takes four of the 32 outputs.
struct OutWeights {
  float4 part[4][kExpertWidth / 128];

  __device__ __forceinline__ void Load(const Block& b) {
    const float* w = b.args.out_weight + 4 * b.warp * kExpertWidth + 4 * b.lane;
#pragma unroll
    for (int o = 0; o < 4; ++o) {
#pragma unroll
      for (int k = 0; k < kExpertWidth / 128; ++k) {
        part[o][k] = LoadFloats(w + o * kExpertWidth + k * 128);
      }
    }
  }
};

// v = out_weight norm(h) + bias and x += dt v for this block's token.
__device__ __forceinline__ void StepActions(const Block& b, float product,
                                            int step, int steps,
                                            const float* bias, float scale) {
  const int o = 4 * b.warp + b.lane;
  const float v = product * scale + bias[o];
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

// The end of a step for this block's token, and what the next one begins with.
// Weights are on their way while what they multiply is.
template <ExpertForm kForm>
__device__ __forceinline__ void UpdateActions(const Block& b, int step,
                                              int steps, int next_time_row,
                                              const float* bias, unsigned tag) {
  OutWeights out;
  out.Load(b);
  SyncMatrixThreads();  // shared.wide is free
  ReceiveRow(b, tag);
  SyncMatrixThreads();
  const float* row = reinterpret_cast<const float*>(b.shared.wide);
  const float square = WarpSum(
      row[kExpertWidth + b.lane] + row[kExpertWidth + 32 + b.lane] +
      row[kExpertWidth + 64 + b.lane] + row[kExpertWidth + 96 + b.lane]);
  const float scale = InverseRms(square);
  float sum[4] = {};
#pragma unroll
  for (int k = 0; k < kExpertWidth / 128; ++k) {
    const float4 h =
        *reinterpret_cast<const float4*>(row + 128 * k + 4 * b.lane);
#pragma unroll
    for (int o = 0; o < 4; ++o) sum[o] += Dot4(h, out.part[o][k]);
  }
  constexpr bool kMixes = kForm == ExpertForm::kPi0;
  InWeights in;
  if constexpr (kMixes) in.Load(b, (sum[0] + sum[1]) + (sum[2] + sum[3]));
#pragma unroll
  for (int o = 0; o < 4; ++o) sum[o] = WarpSum(sum[o]);
  if (b.lane < 4) {
    const float s = b.lane == 0   ? sum[0]
                    : b.lane == 1 ? sum[1]
                    : b.lane == 2 ? sum[2]
                                  : sum[3];
    StepActions(b, s, step, steps, bias, scale);
  }
  SyncMatrixThreads();
  if (step + 1 == steps) return;
  if constexpr (kMixes) {
    SendMixed(b, in, next_time_row, (step + 1) & 1);
  } else {
    SendActions(b, (step + 1) & 1);
  }
}

}  // namespace piserve::kernels::expert
