// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/project.cuh"

// The matrix stages of a layer, and the residual.
namespace piserve::kernels::expert {

// Behind a norm's scale: what its shift adds. Position n of a group of
// `columns`, as float2 pairs.
__device__ __forceinline__ float2 ShiftPair(const float* shift, int n) {
  return shift == nullptr ? make_float2(0, 0)
                          : __ldg(reinterpret_cast<const float2*>(shift + n));
}

// Two columns behind norm and RoPE, for the upper or the lower row.
struct Pair {
  float u, v;
};

__device__ __forceinline__ Pair Rotate(float u, float v, float scale,
                                       float2 add, float2 rope) {
  u = u * scale + add.x;
  v = v * scale + add.y;
  return Pair{u * rope.x - v * rope.y, v * rope.x + u * rope.y};
}

// Queries: the first warpgroup finishes the block's 16 columns, d plus the
// other's `far`.
__device__ __forceinline__ void SendQueries(const Block& b, const float* d,
                                            const float4* far,
                                            const float2 (&add)[3],
                                            unsigned tag) {
  const float s0 = b.shared.scale[b.row0], s1 = b.shared.scale[b.row0 + 8];
  const float4 x = far[0], y = far[128];
  const Pair p0 = Rotate(d[0] + x.x, d[1] + x.y, s0, add[0], b.rope[0]);
  const Pair p1 = Rotate(d[2] + x.z, d[3] + x.w, s1, add[0], b.rope[1]);
  const Pair p2 = Rotate(d[4] + y.x, d[5] + y.y, s0, add[1], b.rope[2]);
  const Pair p3 = Rotate(d[6] + y.z, d[7] + y.w, s1, add[1], b.rope[3]);
  if (b.row0 >= b.rows) return;
  StorePacket(b.mail + Workspace::kQuery + FragmentAt(b.id, b.warp & 3, b.lane),
              make_uint4(PackTagged(p0.u, p0.v, tag), PackPair(p1.u, p1.v),
                         PackPair(p2.u, p2.v), PackPair(p3.u, p3.v)));
}

// Keys or values: the second warpgroup finishes the block's 8 columns, by token
// for the suffix's tile; the state token's go to the layer's keep.
__device__ __forceinline__ void SendKeyOrValue(const Block& b, int layer,
                                               const float* d,
                                               const float4* far, float2 add,
                                               unsigned tag) {
  const float4 x = *far;
  const Pair p[2] = {
      Rotate(d[0] + x.x, d[1] + x.y, b.shared.scale[b.row0], add, b.rope[0]),
      Rotate(d[2] + x.z, d[3] + x.w, b.shared.scale[b.row0 + 8], add,
             b.rope[1])};
  const int first = b.lane & ~3;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = b.row0 + 8 * r;
    const bool state = b.HasState() && row == b.horizon;
    const std::uint32_t word = b.quad == 0
                                   ? PackTagged(p[r].u, p[r].v, state ? 0 : tag)
                                   : PackPair(p[r].u, p[r].v);
    uint4 packet;
    packet.x = __shfl_sync(~0u, word, first);
    packet.y = __shfl_sync(~0u, word, first + 1);
    packet.z = __shfl_sync(~0u, word, first + 2);
    packet.w = __shfl_sync(~0u, word, first + 3);
    // kKey and kValue lie behind each other: group b.id of both
    char* to = state ? b.mail + Workspace::kState + (layer * 64 + b.id) * 16
                     : b.mail + Workspace::kKey + (b.id * kRows + row) * 16;
    if (b.quad == r && row < b.rows) StorePacket(to, packet);
  }
}

// Queries, keys and values of this block's groups: norm, projection, RoPE.
template <int kGroups>
__device__ __forceinline__ void Qkv(Block& b, int layer, const float* shift,
                                    unsigned in_tag, unsigned tag) {
  float2 add[3];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    add[n] = ShiftPair(shift, 8 * GroupOf(b.id, n) + 2 * b.quad);
  }
  ResidualScales scales(b, b.mail + Workspace::kAttentionSums, 2 * b.group);
  float d[4 * kGroups];
  Multiply<kGroups, 4>(
      b, b.mail + Workspace::kAttentionIn + 2 * b.group * kChunkBytes, in_tag,
      [](int i) { return 4 * (i >> 1) + (i & 1); },
      [&](int i) { return b.slot + 2 * (i >> 1) + b.group; },
      [](int i) { return (i & 1) * 16 * kGroups * 128; },
      [](int i) { return (i & 1) == 1; }, scales, d);
  if (b.last) b.slot += 4;
  float4* exchange = reinterpret_cast<float4*>(b.shared.small) + b.thread;
  if (b.group == 1) {
    exchange[0] = make_float4(d[0], d[1], d[2], d[3]);
    exchange[128] = make_float4(d[4], d[5], d[6], d[7]);
  } else if (kGroups == 3) {
    exchange[256] = make_float4(d[4 * kGroups - 4], d[4 * kGroups - 3],
                                d[4 * kGroups - 2], d[4 * kGroups - 1]);
  }
  SyncMatrixThreads();
  if (b.group == 0) {
    SendQueries(b, d, exchange, add, tag);
  } else if (kGroups == 3) {
    SendKeyOrValue(b, layer, d + 4 * kGroups - 4, exchange + 256, add[2], tag);
  }
}

// Sends a 64 x 64 partial sum, block `part`'s columns, to the blocks that own
// the columns of the residual: [split][owner][half of 4 columns][row].
__device__ __forceinline__ void SendPartial(const Block& b, char* to,
                                            const float (&e)[16],
                                            unsigned tag) {
  const int owner = 8 * b.part + 2 * b.quad + b.group;
  to += ((b.split * kBlocks + owner) * 2 * kRows + b.row0) * 16L;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (b.row0 + 8 * r >= b.rows) break;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float* v = e + 8 * h + 2 * r;
      StorePacket(to + (h * kRows + 8 * r) * 16,
                  TagFloats(make_float4(v[0], v[1], v[4], v[5]), tag));
    }
  }
}

// The head's share of the output projection, 64 columns.
__device__ __forceinline__ void ProjectOut(Block& b, unsigned tag) {
  NoScales scales;
  float d[32];
  Multiply<8, 1>(
      b,
      b.mail + Workspace::kAttended + b.split * (kRows * kHeadDim * 2) +
          b.group * kChunkBytes,
      tag, [](int) { return 0; }, [&](int) { return b.slot + b.group; },
      [](int) { return 0; }, [](int) { return true; }, scales, d);
  if (b.last) b.slot += 2;
  float e[16];
  AddWarpgroups(b, d, b.shared.middle, e);
  SendPartial(b, b.mail + Workspace::kOutPartial, e, tag);
}

// tanh form of GELU: v * sigmoid(2 u), exact to FP32 rounding.
__device__ __forceinline__ float Gelu(float v) {
  const float u = 0.7978845608028654f * (v + 0.044715f * v * v * v);
  return __fdividef(v, 1 + __expf(-2 * u));
}

// Gate and up of 32 columns: norm, projections, gelu(gate) * up.
__device__ __forceinline__ void GateUp(Block& b, const float* shift,
                                       unsigned tag) {
  float2 add[4];
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    add[n] = ShiftPair(
        shift, kQkvGroups * 8 + 64 * b.id + 32 * b.group + 8 * n + 2 * b.quad);
  }
  ResidualScales scales(b, b.mail + Workspace::kMlpSums, b.group);
  float d[32];
  Multiply<8, 4>(
      b, b.mail + Workspace::kMlpIn + b.group * kChunkBytes, tag,
      [](int i) { return 2 * i; },
      [&](int i) { return b.slot + 2 * i + b.group; }, [](int) { return 0; },
      [](int) { return true; }, scales, d);
  if (b.last) b.slot += 8;
  float e[16];
  AddWarpgroups(b, d, b.shared.wide, e);
  const float s0 = b.shared.scale[b.row0], s1 = b.shared.scale[b.row0 + 8];
  float u[4], v[4];  // upper and lower row
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    u[n] = Gelu(e[4 * n] * s0 + add[n].x) * (e[4 * n + 1] * s0 + add[n].y);
    v[n] = Gelu(e[4 * n + 2] * s1 + add[n].x) * (e[4 * n + 3] * s1 + add[n].y);
  }
  if (b.row0 >= b.rows) return;
  StorePacket(b.mail + Workspace::kGated +
                  FragmentAt(2 * b.id + b.group, b.warp & 3, b.lane),
              make_uint4(PackTagged(u[0], u[1], tag), PackPair(v[0], v[1]),
                         PackPair(u[2], u[3]), PackPair(v[2], v[3])));
}

// 512 of down's 4096 inputs, 64 columns.
__device__ __forceinline__ void ProjectDown(Block& b, unsigned tag) {
  NoScales scales;
  float d[32];
  Multiply<8, 2>(
      b,
      b.mail + Workspace::kGated + b.split * (kRows * 512 * 2L) +
          b.group * kChunkBytes,
      tag, [](int i) { return 2 * i; },
      [&](int i) { return b.slot + 2 * i + b.group; }, [](int) { return 0; },
      [](int) { return true; }, scales, d);
  if (b.last) b.slot += 4;
  float e[16];
  AddWarpgroups(b, d, b.shared.middle, e);
  SendPartial(b, b.mail + Workspace::kDownPartial, e, tag);
}

// What a token's residual meets: the gate of the sub-block that ends and the
// gain of the norm that follows, for this lane's four columns.
struct Modulation {
  float4 gate, gain;

  // Norm `before` opened the sub-block (-1: none), `after` comes next.
  __device__ __forceinline__ void Load(const Block& b, int time_row, int before,
                                       int after) {
    const int column = b.OwnColumn();
    gate = make_float4(1, 1, 1, 1);
    const auto at = [](const float* p) {
      return __ldg(reinterpret_cast<const float4*>(p));
    };
    if (b.HasState()) {
      gain = at(b.args.norm + after * kExpertWidth + column);
    } else {
      const float* row =
          b.args.norm + static_cast<long>(time_row) * kModulationRow + column;
      gain = at(row + after * 3 * kExpertWidth);
      if (before >= 0) gate = at(row + (before * 3 + 2) * kExpertWidth);
    }
    gain.x += 1, gain.y += 1, gain.z += 1, gain.w += 1;
  }
};

// Sends x * gain in bf16, and the sums of squares of x.
__device__ __forceinline__ void SendResidual(const Block& b,
                                             const Modulation& m, char* to,
                                             char* sums, unsigned tag) {
  const float4 x = b.Residual();
  float square = x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
  const float u0 = x.x * m.gain.x, u1 = x.y * m.gain.y;
  const bool upper = (b.lane & 4) == 0;
  const std::uint32_t w0 = upper ? PackTagged(u0, u1, tag) : PackPair(u0, u1);
  const std::uint32_t w1 = PackPair(x.z * m.gain.z, x.w * m.gain.w);
  const std::uint32_t below0 = __shfl_xor_sync(~0u, w0, 4);
  const std::uint32_t below1 = __shfl_xor_sync(~0u, w1, 4);
  if ((b.lane & 5) == 0 && b.OwnRow() < b.rows) {
    const int lane = 4 * (b.OwnRow() & 7) + 2 * (b.id & 1) + b.OwnHalf();
    StorePacket(to + FragmentAt(b.id >> 1, b.warp >> 1, lane),
                make_uint4(w0, below0, w1, below1));
  }
  square += __shfl_xor_sync(~0u, square, 2);
  float row[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    row[i] = __shfl_sync(~0u, square, 8 * (i & 3) + (i & 4));
  }
  if (b.lane == 0 && SumsRow(b.warp) < b.rows) {
    StorePacket(
        sums + SumsAt(b.warp, b.id),
        make_uint4(PackTagged(row[0], row[1], tag), PackPair(row[2], row[3]),
                   PackPair(row[4], row[5]), PackPair(row[6], row[7])));
  }
}

// Adds the eight splits of a projection to the residual, in order.
__device__ __forceinline__ void AddToResidual(Block& b, const char* partial,
                                              const Modulation& m,
                                              unsigned tag) {
  uint4 v[4];
  const int late = b.lane & 1;  // splits 0 to 3, or 4 to 7
  const int row = b.OwnRow() < b.rows ? b.OwnRow() : 0;
  const char* base =
      Opaque(partial +
             ((4 * late * kBlocks + b.id) * 2 + b.OwnHalf()) * (kRows * 16L) +
             row * 16);
  const auto address = [&](int i) {
    return base + i * (kBlocks * 2 * kRows * 16L);
  };
  AwaitFirst(b, address((b.lane >> 1) & 3), tag);
  Receive(v, address, tag);
  __syncwarp();
  float4 sum = AsFloats(v[0]);
#pragma unroll
  for (int i = 1; i < 4; ++i) {
    const float4 f = AsFloats(v[i]);
    sum.x += f.x, sum.y += f.y, sum.z += f.z, sum.w += f.w;
  }
  sum.x += __shfl_xor_sync(~0u, sum.x, 1);
  sum.y += __shfl_xor_sync(~0u, sum.y, 1);
  sum.z += __shfl_xor_sync(~0u, sum.z, 1);
  sum.w += __shfl_xor_sync(~0u, sum.w, 1);
  float4 x = b.Residual();
  x.x += sum.x * m.gate.x;
  x.y += sum.y * m.gate.y;
  x.z += sum.z * m.gate.z;
  x.w += sum.w * m.gate.w;
  b.SetResidual(x);
}

}  // namespace piserve::kernels::expert
