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

struct AttentionPlace {
  int split;        // two tiles
  int half;         // of the value dimensions
  int tile;         // this warpgroup's
  bool live0, live1;     // per warpgroup: the tile holds keys
  int slot;         // this warpgroup's first
  int slots;        // both's
  int suffix_slot;  // the last tile's first
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
  __device__ __forceinline__ void Ask(const Block& b, const AttentionPlace& p,
                                      int layer) {
    Request(
        v_, [&](int i) { return Address(b, p, layer, i); },
        [&](int i) { return Live(b, i); });
  }
  __device__ __forceinline__ void Place(const Block& b, const AttentionPlace& p,
                                        int layer, unsigned tag) {
    const int key = Key(b);
    const bool state = key == b.horizon;
    Settle(
        v_, [&](int i) { return Address(b, p, layer, i); },
        [&](int i) { return Live(b, i); }, state ? 0 : tag);
    for (int s = 0; s < 3; ++s) {
      WaitFull(&b.shared.ring, p.suffix_slot + s);
    }
    const int to = Overflow(b.prefix) + key;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      if (!Live(b, i)) continue;
      const int column = Column(b, i);
      const int slot =
          column < 32 ? p.suffix_slot + (column >> 4) : p.suffix_slot + 2;
      char* tile = b.shared.slots + (slot % kSlots) * kSlotBytes;
      *reinterpret_cast<uint4*>(tile + TileAt(column & 15, to)) = v_[i];
    }
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    SyncMatrixThreads();
  }

 private:
  static constexpr int kEach = 12;  // 48 groups x 64 keys, 256 threads

  __device__ __forceinline__ static int Thread(const Block& b) {
    return b.warp * 32 + b.lane;
  }
  __device__ __forceinline__ static int Key(const Block& b) {
    return Thread(b) & 63;
  }
  // 0 .. 31 of keys, then 16 of this half's values.
  __device__ __forceinline__ static int Column(const Block& b, int i) {
    return (Thread(b) >> 6) + 4 * i;
  }
  __device__ __forceinline__ static bool Live(const Block& b, int) {
    return Key(b) < b.horizon || (b.HasState() && Key(b) == b.horizon);
  }
  __device__ __forceinline__ static const char* Address(const Block& b,
                                                        const AttentionPlace& p,
                                                        int layer, int i) {
    const int column = Column(b, i);
    const int value = 16 * p.half + column - 32;
    if (Key(b) == b.horizon) {
      return b.mail + Workspace::kState +
             (layer * 64 + (column < 32 ? column : 32 + value)) * 16;
    }
    const long base = column < 32 ? Workspace::kKey + column * (kRows * 16)
                                  : Workspace::kValue + value * (kRows * 16);
    return b.mail + base + Key(b) * 16;
  }

  uint4 v_[kEach];
};

// Row `row` may see key `key` of tile `tile`.
__device__ __forceinline__ bool Sees(const Block& b, int tile, int row,
                                     int key) {
  if (tile < kCachedTiles) return tile * kTileKeys + key < b.prefix;
  const int cached = Overflow(b.prefix);
  if (key < cached) return true;
  const int token = key - cached;
  const bool has_state = b.HasState();
  if (has_state && row == b.horizon) return token == b.horizon;
  return token < b.horizon + (has_state ? 1 : 0);
}

// Scores s (64 tokens x 64 keys) to probabilities relative to the row's maximum
// in this tile, as bf16 fragments; maximum and sum to shared.stats.
__device__ __forceinline__ void Softmax(const Block& b, int tile,
                                        float (&s)[32],
                                        std::uint32_t (&p)[16]) {
  float most[2] = {kNoScore, kNoScore}, sum[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int key = 8 * (i >> 2) + 2 * b.quad + (i & 1);
    const int r = (i >> 1) & 1;
    s[i] = Sees(b, tile, b.row0 + 8 * r, key) ? s[i] * kScoreScale : kNoScore;
    most[r] = fmaxf(most[r], s[i]);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 1));
    most[r] = fmaxf(most[r], __shfl_xor_sync(~0u, most[r], 2));
  }
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int r = (i >> 1) & 1;
    s[i] = s[i] == kNoScore ? 0 : exp2f(s[i] - most[r]);
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
  for (int i = 0; i < 16; ++i) p[i] = PackBf16(s[2 * i], s[2 * i + 1]);
}

// A tile's scores and its product with the values.
__device__ __forceinline__ void AttendTile(const Block& b,
                                           const AttentionPlace& place,
                                           const uint4 (&q)[16],
                                           float (&o)[64]) {
  float s[32];
#pragma unroll
  for (int i = 0; i < 32; ++i) s[i] = 0;
  WaitFull(&b.shared.ring, place.slot);
  WaitFull(&b.shared.ring, place.slot + 1);
  __syncwarp();
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < 16; ++k) {
    Wgmma(s, FragmentOf(q[k & ~1], q[k | 1], k & 1),
          Descriptor(SlotAddress(b, place.slot + (k >> 3)) + (k & 7) * 2048,
                     1024, 128));
  }
  WgmmaCommit();
  WgmmaWait<0>();
  ReleaseSlot(b, place.slot);
  ReleaseSlot(b, place.slot + 1);
  std::uint32_t p[16];
  Softmax(b, place.tile, s, p);
  WaitFull(&b.shared.ring, place.slot + 2);
  __syncwarp();
  const std::uint32_t values = SlotAddress(b, place.slot + 2);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    WgmmaTransposed(
        o, Fragment{{p[4 * k], p[4 * k + 1], p[4 * k + 2], p[4 * k + 3]}},
        Descriptor(values + k * 256, 128, 1024));
  }
  WgmmaCommit();
  WgmmaWait<0>();
  ReleaseSlot(b, place.slot + 2);
}

// Merges the warpgroups' results and sends them: [head, half][split] of 16
// packets of 8 dimensions by row, and per row the maximum and the sum.
__device__ __forceinline__ void SendSplit(const Block& b,
                                          const AttentionPlace& p,
                                          const float (&o)[64], unsigned tag) {
  float4* mine =
      reinterpret_cast<float4*>(b.shared.wide) + b.group * 1024 + b.thread;
  const float4* other = reinterpret_cast<float4*>(b.shared.wide) +
                        (1 - b.group) * 1024 + b.thread;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    mine[i * 128] = b.group == 0 ? make_float4(o[8 * i + 2], o[8 * i + 3],
                                               o[8 * i + 6], o[8 * i + 7])
                                 : make_float4(o[8 * i], o[8 * i + 1],
                                               o[8 * i + 4], o[8 * i + 5]);
  }
  SyncMatrixThreads();
  const float2 own = b.shared.stats[b.group][b.row];
  const float2 far = b.shared.stats[1 - b.group][b.row];
  const float most = fmaxf(own.x, far.x);
  const float f = exp2f(own.x - most), h = exp2f(far.x - most);
  if (b.row >= b.rows) return;
  const int place = SplitAt(b, p, p.split);
  char* to = b.mail + Workspace::kSplit +
             ((place * 16 + 4 * b.quad) * kRows + b.row) * 16L;
#pragma unroll
  for (int q = 0; q < 4; ++q) {
    float v[8];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 x = other[(2 * q + i) * 128];
      v[4 * i] = (b.group == 0 ? o[16 * q + 8 * i] : o[16 * q + 8 * i + 2]);
      v[4 * i + 1] =
          (b.group == 0 ? o[16 * q + 8 * i + 1] : o[16 * q + 8 * i + 3]);
      v[4 * i + 2] =
          (b.group == 0 ? o[16 * q + 8 * i + 4] : o[16 * q + 8 * i + 6]);
      v[4 * i + 3] =
          (b.group == 0 ? o[16 * q + 8 * i + 5] : o[16 * q + 8 * i + 7]);
      v[4 * i] = v[4 * i] * f + x.x * h;
      v[4 * i + 1] = v[4 * i + 1] * f + x.y * h;
      v[4 * i + 2] = v[4 * i + 2] * f + x.z * h;
      v[4 * i + 3] = v[4 * i + 3] * f + x.w * h;
    }
    StorePacket(to + q * (kRows * 16),
                make_uint4(PackTagged(v[0], v[1], tag), PackBf16(v[2], v[3]),
                           PackBf16(v[4], v[5]), PackBf16(v[6], v[7])));
  }
  if (b.quad == 0) {
    StorePacket(b.mail + Workspace::kSplitStats + (place * kRows + b.row) * 16L,
                make_uint4(tag, __float_as_uint(most),
                           __float_as_uint(own.y * f + far.y * h), 0));
  }
}

__device__ __forceinline__ void Attend(Block& b, int layer, unsigned tag) {
  const AttentionPlace p = PlaceOf(b);
  if (p.slots == 0) return;
  uint4 q[16];
  const bool live0 = b.row0 < b.rows, live1 = b.row0 + 8 < b.rows;
  const char* queries = b.mail + Workspace::kQuery +
                        b.split * (kRows * kHeadDim * 2) +
                        (b.row0 * 4 + b.quad) * 16;
  const auto address = [&](int i) {
    return queries + (i >> 1) * (kRows * 64) + (i & 1) * 512;
  };
  const auto live = [&](int i) { return (i & 1) == 0 ? live0 : live1; };
  Request(q, address, live);
  if (p.split == kTiles / 2 - 1) {
    SuffixTile suffix;
    suffix.Ask(b, p, layer);
    suffix.Place(b, p, layer, tag);
  }
  float o[64];
#pragma unroll
  for (int i = 0; i < 64; ++i) o[i] = 0;
  if (b.group == 0 ? p.live0 : p.live1) {
    Settle(q, address, live, tag);
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
  const int row = b.OwnRow(), late = b.lane & 1;
  const int packet = 2 * p.split + b.OwnHalf();
  const bool row_live = row < b.rows;
  const auto live = [&](int i) {
    const int split = 4 * late + i;
    return row_live &&
           (TileIsLive(2 * split, b.prefix) || split == kTiles / 2 - 1);
  };
  const auto values = [&](int i) {
    return b.mail + Workspace::kSplit +
           ((SplitAt(b, p, 4 * late + i) * 16 + packet) * kRows + row) * 16L;
  };
  const auto stats = [&](int i) {
    return b.mail + Workspace::kSplitStats +
           (SplitAt(b, p, 4 * late + i) * kRows + row) * 16L;
  };
  uint4 v[4], s[4];
  Request(s, stats, live);
  Request(v, values, live);
  Settle(s, stats, live, tag);
  Settle(v, values, live, tag);
  __syncwarp();
  float most = kNoScore;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (live(i)) most = fmaxf(most, __uint_as_float(s[i].y));
  }
  most = fmaxf(most, __shfl_xor_sync(~0u, most, 1));
  float total = 0, o[8] = {};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float f = live(i) ? exp2f(__uint_as_float(s[i].y) - most) : 0;
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
#pragma unroll
  for (int k = 0; k < 8; ++k) {
    o[k] = (o[k] + __shfl_xor_sync(~0u, o[k], 1)) / total;
  }
  if (late != 0 || !row_live) return;
  const int column8 = 16 * p.half + packet;
  StorePacket(b.mail + Workspace::kAttended + b.split * (kRows * kHeadDim * 2) +
                  PacketAt(column8, row) * 16,
              make_uint4(PackTagged(o[0], o[1], tag), PackBf16(o[2], o[3]),
                         PackBf16(o[4], o[5]), PackBf16(o[6], o[7])));
}

}  // namespace piserve::kernels::expert
