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

// Stores a row's 8 columns of group `n` of kGroups held as two a lane: the lane
// whose quad index is n gathers and stores.
template <int kGroups, typename Store>
__device__ __forceinline__ void StoreGroups(const Block& b,
                                            const std::uint32_t (&word)[3],
                                            Store store) {
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const int first = b.lane & ~3;
    uint4 packet;
    packet.x = __shfl_sync(~0u, word[n], first);
    packet.y = __shfl_sync(~0u, word[n], first + 1);
    packet.z = __shfl_sync(~0u, word[n], first + 2);
    packet.w = __shfl_sync(~0u, word[n], first + 3);
    if (b.quad == n && b.row < b.rows) store(n, packet);
  }
}

// Where group `group` of token `row` goes: queries to their head, keys and
// values to the suffix's tile or, for the state token, to the layer's keep.
__device__ __forceinline__ char* QkvTarget(const Block& b, int layer,
                                           int group) {
  const bool state = b.HasState() && b.row == b.horizon;
  if (group < kFirstKeyGroup) {
    return b.mail + Workspace::kQuery +
           ((group >> 5) * 8 * kRows * 4 + PacketAt(group & 31, b.row)) * 16;
  }
  if (state) {
    return b.mail + Workspace::kState +
           (layer * 64 + group - kFirstKeyGroup) * 16;
  }
  return b.mail +
         (group < kFirstValueGroup
              ? Workspace::kKey + ((group - kFirstKeyGroup) * kRows) * 16
              : Workspace::kValue + ((group - kFirstValueGroup) * kRows) * 16) +
         b.row * 16;
}

// Queries, keys and values of this block's groups: norm, projection, RoPE.
template <int kGroups>
__device__ __forceinline__ void Qkv(Block& b, int layer, const float* shift,
                                    unsigned in_tag, unsigned tag) {
  const char* sums = b.mail + Workspace::kAttentionSums;
  const int first = FirstGroup(b.id);
  float2 add[kGroups];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    add[n] = ShiftPair(shift, 8 * (first + n) + 2 * b.quad);
  }
  Scales scales;
  float d[4 * kGroups];
  Multiply<kGroups, 4>(
      b, b.mail + Workspace::kAttentionIn, in_tag,
      [&](int i) { return 4 * (i >> 1) + 2 * b.group + (i & 1); },
      [&](int i) { return b.slot + 2 * (i >> 1) + b.group; },
      [](int i) { return (i & 1) * 16 * kGroups * 128; },
      [](int i) { return (i & 1) == 1; }, [&] { scales.Ask(b, sums); }, d);
  b.slot += 4;
  scales.Finish(b, sums, in_tag);
  float e[2 * kGroups];
  AddWarpgroups<kGroups>(b, d, b.shared.small, e);
  const float scale = b.shared.scale[b.row];
  std::uint32_t word[3];
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
    const float u = e[2 * n] * scale + add[n].x;
    const float v = e[2 * n + 1] * scale + add[n].y;
    const float u_out = u * b.rope[n].x - v * b.rope[n].y;
    const float v_out = v * b.rope[n].x + u * b.rope[n].y;
    const bool state =
        b.HasState() && b.row == b.horizon && first + n >= kFirstKeyGroup;
    word[n] = b.quad == 0 ? PackTagged(u_out, v_out, state ? 0 : tag)
                          : PackBf16(u_out, v_out);
  }
  StoreGroups<kGroups>(b, word, [&](int n, uint4 packet) {
    StorePacket(QkvTarget(b, layer, first + n), packet);
  });
}

// Sends a 64 x 64 partial sum, block `part`'s columns, to the blocks that own
// the columns of the residual: [split][owner][half of 4 columns][row].
__device__ __forceinline__ void SendPartial(const Block& b, char* to,
                                            const float (&e)[16],
                                            unsigned tag) {
  if (b.row >= b.rows) return;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    const int owner = 8 * b.part + 2 * b.quad + (q >> 1);
    const int at = ((b.split * kBlocks + owner) * 2 + (q & 1)) * kRows + b.row;
    StorePacket(to + at * 16L,
                TagFloats(make_float4(e[4 * q], e[4 * q + 1], e[4 * q + 2],
                                      e[4 * q + 3]),
                          tag));
  }
}

// The head's share of the output projection, 64 columns.
__device__ __forceinline__ void ProjectOut(Block& b, unsigned tag) {
  float d[32];
  Multiply<8, 1>(
      b, b.mail + Workspace::kAttended + b.split * (kRows * kHeadDim * 2), tag,
      [&](int) { return b.group; }, [&](int) { return b.slot + b.group; },
      [](int) { return 0; }, [](int) { return true; }, [] {}, d);
  b.slot += 2;
  float e[16];
  AddWarpgroups<8>(b, d, b.shared.middle, e);
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
  const char* sums = b.mail + Workspace::kMlpSums;
  float2 add[8];
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    add[n] = ShiftPair(shift, kQkvGroups * 8 + 64 * b.id + 8 * n + 2 * b.quad);
  }
  Scales scales;
  float d[32];
  Multiply<8, 4>(
      b, b.mail + Workspace::kMlpIn, tag,
      [&](int i) { return 2 * i + b.group; },
      [&](int i) { return b.slot + 2 * i + b.group; }, [](int) { return 0; },
      [](int) { return true; }, [&] { scales.Ask(b, sums); }, d);
  b.slot += 8;
  scales.Finish(b, sums, tag);
  float e[16];
  AddWarpgroups<8>(b, d, b.shared.wide, e);
  const float scale = b.shared.scale[b.row];
  float v[8];
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    v[n] =
        Gelu(e[2 * n] * scale + add[n].x) * (e[2 * n + 1] * scale + add[n].y);
  }
  if (b.row >= b.rows) return;
  StorePacket(
      b.mail + Workspace::kGated + PacketAt(4 * b.id + b.quad, b.row) * 16L,
      make_uint4(PackTagged(v[0], v[1], tag), PackBf16(v[2], v[3]),
                 PackBf16(v[4], v[5]), PackBf16(v[6], v[7])));
}

// 512 of down's 4096 inputs, 64 columns.
__device__ __forceinline__ void ProjectDown(Block& b, unsigned tag) {
  float d[32];
  Multiply<8, 2>(
      b, b.mail + Workspace::kGated + b.split * (kRows * 512 * 2L), tag,
      [&](int i) { return 2 * i + b.group; },
      [&](int i) { return b.slot + 2 * i + b.group; }, [](int) { return 0; },
      [](int) { return true; }, [] {}, d);
  b.slot += 4;
  float e[16];
  AddWarpgroups<8>(b, d, b.shared.middle, e);
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
  float square = b.x.x * b.x.x + b.x.y * b.x.y + b.x.z * b.x.z + b.x.w * b.x.w;
  const float u0 = b.x.x * m.gain.x, u1 = b.x.y * m.gain.y;
  const std::uint32_t w0 =
      b.OwnHalf() == 0 ? PackTagged(u0, u1, tag) : PackBf16(u0, u1);
  const std::uint32_t w1 = PackBf16(b.x.z * m.gain.z, b.x.w * m.gain.w);
  const std::uint32_t w2 = __shfl_xor_sync(~0u, w0, 2);
  const std::uint32_t w3 = __shfl_xor_sync(~0u, w1, 2);
  const float other = __shfl_xor_sync(~0u, square, 2);
  square = b.OwnHalf() == 0 ? square + other : other + square;
  if ((b.lane & 3) == 0 && b.OwnRow() < b.rows) {
    StorePacket(to + PacketAt(b.id, b.OwnRow()) * 16L,
                make_uint4(w0, w1, w2, w3));
  }
  const int base = b.lane & 16;
  const float4 four = make_float4(
      __shfl_sync(~0u, square, base), __shfl_sync(~0u, square, base + 4),
      __shfl_sync(~0u, square, base + 8), __shfl_sync(~0u, square, base + 12));
  const int row4 = 2 * b.warp + b.lane / 16;
  if ((b.lane & 15) == 0 && 4 * row4 < b.rows) {
    StorePacket(sums + SumsAt(row4, b.id), TagFloats(four, tag));
  }
}

// Adds the eight splits of a projection to the residual, in order.
__device__ __forceinline__ void AddToResidual(Block& b, const char* partial,
                                              const Modulation& m,
                                              unsigned tag) {
  uint4 v[4];
  const int late = b.lane & 1;  // splits 0 to 3, or 4 to 7
  const char* base =
      partial +
      ((4 * late * kBlocks + b.id) * 2 + b.OwnHalf()) * (kRows * 16L) +
      b.OwnRow() * 16;
  const bool live = b.OwnRow() < b.rows;
  Receive(
      v, [&](int i) { return base + i * (kBlocks * 2 * kRows * 16L); },
      [&](int) { return live; }, tag);
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
  b.x.x += sum.x * m.gate.x;
  b.x.y += sum.y * m.gate.y;
  b.x.z += sum.z * m.gate.z;
  b.x.w += sum.w * m.gate.w;
}

}  // namespace piserve::kernels::expert
