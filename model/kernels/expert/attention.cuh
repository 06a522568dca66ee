// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/block.cuh"

// Attention of all tokens over cache and suffix. A block takes one head, two of
// the 16 key tiles (one a warpgroup) and half of the value dimensions; blocks
// of a head then exchange their partial results, each with its row maxima and
// sums, and each finishes 16 dimensions.
namespace piserve::kernels::expert {

inline constexpr float kNoScore = -1e30f;
// Scores to powers of two: log2(e) / sqrt(256).
inline constexpr float kScoreScale = 1.4426950408889634f / 16;

__device__ __forceinline__ float Exp2(float v) {
  asm("ex2.approx.ftz.f32 %0, %0;" : "+f"(v));
  return v;
}

struct AttentionPlace {
  int split;          // two tiles
  int half;           // of the value dimensions
  int tile;           // this warpgroup's
  bool live0, live1;  // per warpgroup: the tile holds keys
  int slot;           // this warpgroup's first
  int slots;          // both's
  int suffix_slot;    // the last tile's first
};

__device__ __forceinline__ AttentionPlace PlaceOf(const Block& b) {
  AttentionPlace p;
  p.split = b.part >> 1;
  p.half = b.part & 1;
  p.tile = 2 * p.split + b.group;
  p.live0 = TileIsLive(2 * p.split, b.prefix);
  p.live1 = TileIsLive(2 * p.split + 1, b.prefix);
  p.suffix_slot = b.slot + (p.live0 ? 3 : 0);
  p.slot = b.group == 0 ? b.slot : p.suffix_slot;
  p.slots = (p.live0 ? 3 : 0) + (p.live1 ? 3 : 0);
  return p;
}

// Row of the partial results that block `split` of this head and half leaves.
__device__ __forceinline__ int SplitAt(const Block& b, const AttentionPlace& p,
                                       int split) {
  return (b.split * 2 + p.half) * 8 + split;
}

// Brings the suffix's keys and values, fresh from other blocks, into the last
// tile behind the cached keys that share it.
class SuffixTile {
 public:
  __device__ __forceinline__ SuffixTile(const Block& b, const AttentionPlace& p,
                                        int layer, unsigned tag) {
    const int thread = b.warp * 32 + b.lane;
    first_ = thread >> 6;
    const int tokens = b.horizon + (b.HasState() ? 1 : 0);
    key_ = thread & 63;
    live_ = key_ < tokens;
    state_ = key_ == b.horizon && live_;
    const int from = live_ ? key_ : 0;
    const char* keys = b.mail + Workspace::kKey + from * 16;
    const char* values =
        b.mail + Workspace::kValue + 16 * p.half * (kRows * 16) + from * 16;
    if (state_) {
      keys = b.mail + Workspace::kState + layer * (64 * 16);
      values = keys + (32 + 16 * p.half) * 16;
    }
    step_ = state_ ? 16 : kRows * 16;
    keys_ = Opaque(keys + first_ * step_);
    values_ = Opaque(values + first_ * step_);
    AwaitFirst(b, Address(6 + (b.warp & 1)), state_ ? 0 : tag);
    Request(v_, [&](int i) { return Address(i); });
  }
  __device__ __forceinline__ void Place(const Block& b, const AttentionPlace& p,
                                        unsigned tag) {
    Settle(
        v_, [&](int i) { return Address(i); }, state_ ? 0 : tag);
    for (int s = 0; s < 3; ++s) {
      WaitFull(&b.shared.ring, p.suffix_slot + s);
    }
    const int to = TileAt(first_, Overflow(b.prefix) + key_);
#pragma unroll
    for (int s = 0; s < 3; ++s) {
      const int slot = (p.suffix_slot + s) % kSlots;
      char* tile = b.shared.slots + slot * kSlotBytes + to;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (live_) {
          *reinterpret_cast<uint4*>(tile + TileAt(4 * i, 0)) = v_[4 * s + i];
        }
      }
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    SyncMatrixThreads();
    if (b.group == 1) return;  // reads it, and lets go when it has
    for (int s = 0; s < 3; ++s) {
      ReleaseSlot(b, p.suffix_slot + s, Holders::kAllThreads);
    }
  }

 private:
  // 32 groups of keys, then 16 of this half's values; a thread takes every
  // fourth, of one token.
  __device__ __forceinline__ const char* Address(int i) const {
    return i < 8 ? keys_ + 4 * i * step_ : values_ + 4 * (i - 8) * step_;
  }

  int first_, key_, step_;
  bool live_, state_;
  const char* keys_;
  const char* values_;
  uint4 v_[12];
};

// Takes out the scores of keys that a token may not see: those from a count on
// and, for Pi0's state token, the actions.
__device__ __forceinline__ void Mask(const Block& b, int tile, float (&s)[32]) {
  const int cached = Overflow(b.prefix);
  const bool suffix = tile == kCachedTiles;
  const int count = suffix ? cached + b.horizon + (b.HasState() ? 1 : 0)
                           : b.prefix - tile * kTileKeys;
  if (count < kTileKeys) {
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int key = 8 * (i >> 2) + (i & 1);
      if (key >= count - 2 * b.quad) s[i] = kNoScore;
    }
  }
  if (!suffix || b.rows == b.horizon) return;
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int key = 8 * (i >> 2) + 2 * b.quad + (i & 1);
    const int row = b.row0 + 8 * ((i >> 1) & 1);
    const bool action = key >= cached && key < cached + b.horizon;
    if (row == b.horizon && action) s[i] = kNoScore;
  }
}

// Scores s (64 tokens x 64 keys) to probabilities relative to the row's maximum
// in this tile, as bf16 fragments; maximum and sum to shared.stats. Every live
// token sees a key of the tile.
__device__ __forceinline__ void Softmax(const Block& b, int tile,
                                        float (&s)[32],
                                        std::uint32_t (&p)[16]) {
  Mask(b, tile, s);
  float most[2] = {kNoScore, kNoScore}, sum[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    most[(i >> 1) & 1] = fmaxf(most[(i >> 1) & 1], s[i]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
    most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
    most[r] *= kScoreScale;
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int r = (i >> 1) & 1;
    s[i] = Exp2(fmaf(s[i], kScoreScale, -most[r]));
    sum[r] += s[i];
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    if (b.quad == 0) {
      b.shared.stats[b.group][b.row0 + 8 * r] = make_float2(most[r], sum[r]);
    }
  }
#pragma unroll
  for (int i = 0; i < 16; ++i) p[i] = PackPair(s[2 * i], s[2 * i + 1]);
}

// A tile's scores and its product with the values.
__device__ __forceinline__ void AttendTile(const Block& b,
                                           const AttentionPlace& place,
                                           const uint4 (&q)[16],
                                           float (&o)[64]) {
  const Holders holders =
      place.tile == kCachedTiles ? Holders::kAllThreads : Holders::kReaders;
  float s[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) s[i] = 0;
  WaitFull(&b.shared.ring, place.slot);
  WaitFull(&b.shared.ring, place.slot + 1);
  __syncwarp();
  WgmmaFence();
  const Operand keys[2] = {Operand(SlotAddress(b, place.slot), 1024, 128),
                           Operand(SlotAddress(b, place.slot + 1), 1024, 128)};
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    Wgmma(s, AsFragment(q[k]), keys[k >> 3].After((k & 7) * 2048));
  }
  WgmmaCommit();
  WgmmaWait<0>();
  ReleaseSlot(b, place.slot, holders);
  ReleaseSlot(b, place.slot + 1, holders);
  std::uint32_t p[16];
  Softmax(b, place.tile, s, p);
  WaitFull(&b.shared.ring, place.slot + 2);
  __syncwarp();
  const Operand values(SlotAddress(b, place.slot + 2), 128, 1024);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    WgmmaTransposed(
        o, Fragment{{p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3]}},
        values.After(k * 256));
  }
  WgmmaCommit();
  WgmmaWait<0>();
  ReleaseSlot(b, place.slot + 2, holders);
}

// Merges the warpgroups' results and sends them: [head, half][split] of 16
// packets of 8 dimensions by row, and per row the maximum and the sum. Each
// warpgroup finishes one of a lane's two rows.
__device__ __forceinline__ void SendSplit(const Block& b,
                                          const AttentionPlace& p,
                                          const float (&o)[64], unsigned tag) {
  float4* mine =
      reinterpret_cast<float4*>(b.shared.wide) + b.group * 1024 + b.thread;
  const float4* other = reinterpret_cast<float4*>(b.shared.wide) +
                        (1 - b.group) * 1024 + b.thread;
  const bool upper = b.group == 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const float* v = o + 8 * i;
    mine[i * 128] = upper ? make_float4(v[2], v[3], v[6], v[7])
                          : make_float4(v[0], v[1], v[4], v[5]);
  }
  SyncMatrixThreads();
  const int row = b.row0 + 8 * b.group;
  const float2 own = b.shared.stats[b.group][row];
  const float2 far = b.shared.stats[1 - b.group][row];
  const float most = fmaxf(own.x, far.x);
  const float f = Exp2(own.x - most), h = Exp2(far.x - most);
  if (row >= b.rows) return;
  const int place = SplitAt(b, p, p.split);
  char* to = b.mail + Workspace::kSplit +
             ((place * 16 + 4 * b.quad) * kRows + row) * 16;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 x = other[(2 * q + i) * 128];
      const float* w = o + 16 * q + 8 * i;
      v[4 * i] = (upper ? w[0] : w[2]) * f + x.x * h;
      v[4 * i + 1] = (upper ? w[1] : w[3]) * f + x.y * h;
      v[4 * i + 2] = (upper ? w[4] : w[6]) * f + x.z * h;
      v[4 * i + 3] = (upper ? w[5] : w[7]) * f + x.w * h;
    }
    StorePacket(to + q * (kRows * 16),
                make_uint4(PackTagged(v[0], v[1], tag), PackPair(v[2], v[3]),
                           PackPair(v[4], v[5]), PackPair(v[6], v[7])));
  }
  if (b.quad == 0) {
    StorePacket(b.mail + Workspace::kSplitStats + (place * kRows + row) * 16,
                make_uint4(tag, __float_as_uint(most),
                           __float_as_uint(own.y * f + far.y * h), 0));
  }
}

__device__ __forceinline__ void Attend(Block& b, int layer, unsigned tag) {
  const AttentionPlace p = PlaceOf(b);
  if (p.slots == 0) return;
  uint4 q[16];
  const char* from = Fragments(
      b, b.mail + Workspace::kQuery + b.split * (kRows * kHeadDim * 2));
  const auto address = [&](int k) { return from + k * kStepBytes; };
  AwaitFirst(b, address((b.lane >> 2) + 8 * b.group), tag);
  Request(q, address);
  if (p.split == kTiles / 2 - 1) {
    SuffixTile suffix(b, p, layer, tag);
    suffix.Place(b, p, tag);
  }
  float o[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) o[i] = 0;
  if (b.group == 0 ? p.live0 : p.live1) {
    Settle(q, address, tag);
    AttendTile(b, p, q, o);
  } else if (b.quad == 0) {
    b.shared.stats[b.group][b.row0] = make_float2(kNoScore, 0);
    b.shared.stats[b.group][b.row0 + 8] = make_float2(kNoScore, 0);
  }
  b.slot += p.slots;
  SendSplit(b, p, o, tag);
}

// Combines the splits of 16 dimensions of the head and sends them to the output
// projection.
__device__ __forceinline__ void CombineSplits(const Block& b, unsigned tag) {
  const AttentionPlace p = PlaceOf(b);
  const bool row_live = b.OwnRow() < b.rows;
  const int row = row_live ? b.OwnRow() : 0, late = b.lane & 1;
  const int packet = 2 * p.split + b.OwnHalf();
  // A dead split is read as the last one, and weighs nothing.
  constexpr int kLast = kTiles / 2 - 1;
  const auto live = [&](int i) {
    const int split = 4 * late + i;
    return split == kLast || TileIsLive(2 * split, b.prefix);
  };
  const auto at = [&](int i) {
    return SplitAt(b, p, live(i) ? 4 * late + i : kLast);
  };
  const char* value_base =
      Opaque(b.mail + Workspace::kSplit + (packet * kRows + row) * 16);
  const char* stats_base = Opaque(b.mail + Workspace::kSplitStats + row * 16);
  const auto values = [&](int i) {
    return value_base + at(i) * (16 * kRows * 16);
  };
  const auto stats = [&](int i) { return stats_base + at(i) * (kRows * 16); };
  uint4 v[4], s[4];
  AwaitFirst(b, stats(b.lane >> 3), tag);
  Request(s, stats);
  Request(v, values);
  Settle(s, stats, tag);
  Settle(v, values, tag);
  __syncwarp();
  float most = kNoScore;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    most = fmaxf(most, __uint_as_float(s[i].y));
  }
  most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
  float total = 0, o[8] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float f = live(i) ? Exp2(__uint_as_float(s[i].y) - most) : 0;
    total += f * __uint_as_float(s[i].z);
    const std::uint32_t words[4] = {v[i].x, v[i].y, v[i].z, v[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float2 pair = UnpackBf16(words[k]);
      o[2 * k] += f * pair.x;
      o[2 * k + 1] += f * pair.y;
    }
  }
  total += __shfl_xor_sync(~0u, total, 1);
  const float inverse = __frcp_rn(total);
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    o[k] = (o[k] + __shfl_xor_sync(~0u, o[k], 1)) * inverse;
  }
  // The upper of two rows sends columns 0 to 3 of both, the lower 4 to 7.
  const bool upper = (b.lane & 4) == 0;
  const std::uint32_t w0 =
      upper ? PackTagged(o[0], o[1], tag) : PackPair(o[0], o[1]);
  const std::uint32_t w2 =
      upper ? PackTagged(o[4], o[5], tag) : PackPair(o[4], o[5]);
  const std::uint32_t w1 = PackPair(o[2], o[3]), w3 = PackPair(o[6], o[7]);
  const std::uint32_t far0 = __shfl_xor_sync(~0u, upper ? w2 : w0, 4);
  const std::uint32_t far1 = __shfl_xor_sync(~0u, upper ? w3 : w1, 4);
  const int upper_row = b.OwnRow() & ~8;
  if (late != 0 || upper_row >= b.rows) return;
  const int column4 = 32 * p.half + 2 * packet + (upper ? 0 : 1);
  StorePacket(
      b.mail + Workspace::kAttended + b.split * (kRows * kHeadDim * 2) +
          FragmentAt(column4 >> 2, b.warp >> 1,
                     4 * (upper_row & 7) + (column4 & 3)),
      upper ? make_uint4(w0, far0, w1, far1) : make_uint4(far0, w2, far1, w3));
}

}  // namespace piserve::kernels::expert
