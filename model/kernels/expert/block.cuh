// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/expert/layout.h"
#include "model/kernels/expert/packet.cuh"
#include "model/kernels/expert/ring.cuh"
#include "model/kernels/expert/wgmma.cuh"

// One block of the denoising kernel, as each of its matrix threads sees it.
namespace piserve::kernels::expert {

inline constexpr int kMatrixThreads = 256;  // two warpgroups
// A third warpgroup, of which one lane copies, gives its registers away.
inline constexpr int kThreads = kMatrixThreads + 128;
inline constexpr int kMatrixRegisters = 232;
inline constexpr int kCopyRegisters = 40;

// Shared memory. Warpgroups exchange partial sums through `exchange`; two
// stages that follow each other use different ones, so that each needs one
// barrier only: `small` QKV, `wide` attention, `middle` O, `wide` gate-up,
// `middle` down.
struct Shared {
  char slots[kSlots * kSlotBytes];
  char wide[32768];
  char middle[16384];
  char small[6144];
  float scale[kRows];      // 1 / rms of a token
  float2 stats[2][kRows];  // attention: maximum and sum per warpgroup
  float in_weight[8][32];  // Pi0.5: this block's columns of the suffix
  float x[kExpertMaxRows][kExpertActionDim];  // this block's tokens of x_t
  int prefix[kExpertMaxRows];
  RingBarriers ring;
};

__device__ __forceinline__ float4 Choose(bool first, float4 a, float4 b) {
  return make_float4(first ? a.x : b.x, first ? a.y : b.y, first ? a.z : b.z,
                     first ? a.w : b.w);
}

struct Block {
  const ExpertArgs& args;
  Shared& shared;
  char* mail;  // the sequence's workspace

  int id;      // block
  int split;   // of the sums in O and down; head of attention
  int part;    // within the split's 16 blocks
  int group;   // warpgroup, 0 or 1
  int thread;  // within the warpgroup
  int warp;    // within the block
  int lane;
  int quad;    // lane % 4
  int row0;    // first of the two token rows in this lane's fragments
  int row;     // the one of them this warpgroup finishes: row0 + 8 * group
  int prefix;  // valid cached keys of the sequence
  int horizon;
  int table_row;
  int rows = 0;  // tokens of this step
  int slot = 0;  // next slot of the ring
  float2 rope[4];
  float4 x[kExpertMaxRows];  // residual: token OwnRow(), columns OwnColumn() ..
  int sequence = 0;          // the row of the wave that is being worked on
  bool last = true;          // no other one needs the stage's weights

  // The sequence's residual; by choosing, for an index that is not known would
  // keep all of this out of registers.
  __device__ __forceinline__ float4 Residual() const {
    float4 v = x[0];
#pragma unroll
    for (int i = 1; i < kExpertMaxRows; ++i) v = Choose(sequence == i, x[i], v);
    return v;
  }
  __device__ __forceinline__ void SetResidual(float4 v) {
#pragma unroll
    for (int i = 0; i < kExpertMaxRows; ++i) {
      x[i] = Choose(sequence == i, v, x[i]);
    }
  }
  __device__ __forceinline__ bool HasState() const {
    return args.form == ExpertForm::kPi0;
  }
  // Where a lane works on a row by itself, a warp has four rows and the four 8
  // below, and of each four lanes: two halves of the columns, and of the terms.
  __device__ __forceinline__ int OwnRow() const {
    return 16 * (warp >> 1) + 4 * (warp & 1) + (lane >> 3) + (lane & 4) * 2;
  }
  __device__ __forceinline__ int OwnHalf() const { return (lane >> 1) & 1; }
  __device__ __forceinline__ int OwnColumn() const {
    return 8 * id + 4 * OwnHalf();
  }
};

// Keeps the compiler from computing a later stage's addresses ahead and
// spilling them: to it, these may have changed.
__device__ __forceinline__ void Refresh(Block& b) {
  asm volatile("" : "+l"(b.mail), "+r"(b.id), "+r"(b.split), "+r"(b.part));
  asm volatile("" : "+r"(b.lane), "+r"(b.quad), "+r"(b.row0), "+r"(b.group));
  asm volatile(""
               : "+r"(b.prefix), "+r"(b.horizon), "+r"(b.warp), "+r"(b.thread));
}

__device__ __forceinline__ void SyncMatrixThreads() {
  asm volatile("bar.sync 1, %0;" ::"n"(kMatrixThreads) : "memory");
}

__device__ __forceinline__ void SyncWarpgroup(const Block& b) {
  asm volatile("bar.sync %0, 128;" ::"r"(2 + b.group) : "memory");
}

// Runs a stage for every sequence, one after another: while one's results
// travel, the next one's are made, from the same weights. `kMany`: there may be
// more than one.
template <bool kMany, typename Stage>
__device__ __forceinline__ void ForEachSequence(Block& b, Stage stage) {
  if constexpr (!kMany) {
    Refresh(b);
    stage();
  } else {
#pragma unroll 1
    for (int i = 0; i < b.args.rows; ++i) {
      // What the sequence before it left in shared memory has been read.
      if (i > 0) SyncMatrixThreads();
      b.sequence = i;
      b.last = i + 1 == b.args.rows;
      b.mail = static_cast<char*>(b.args.workspace) + i * Workspace::kBytes;
      b.prefix = b.shared.prefix[i];
      Refresh(b);
      stage();
    }
  }
}

// Await for the first sequence. When that has come, the others mostly have too,
// and to ask for one of their packets first would take another way to L2.
__device__ __forceinline__ void AwaitFirst(const Block& b, const char* packet,
                                           unsigned tag) {
  if (b.sequence == 0) Await(packet, tag);
}

// Who lets go of a slot: the warps of the warpgroup that reads it, or, of one
// that all matrix threads have written into, each of them.
enum class Holders { kReaders, kAllThreads };
static_assert(kArrivals == kMatrixThreads);
__device__ __forceinline__ void ReleaseSlot(
    const Block& b, int n, Holders holders = Holders::kReaders) {
  __syncwarp();
  if (holders == Holders::kAllThreads) {
    Release(&b.shared.ring, n, 1);
  } else if (b.lane == 0) {
    constexpr int kReadingWarps = 4;
    Release(&b.shared.ring, n, kArrivals / kReadingWarps);
  }
}

__device__ __forceinline__ std::uint32_t SlotAddress(const Block& b, int n) {
  return SharedAddress(b.shared.slots + (n % kSlots) * kSlotBytes);
}

// This lane's fragments of a matrix. Rows without a token take the first one's:
// the lane must read something, and what comes of it goes nowhere.
__device__ __forceinline__ const char* Fragments(const Block& b,
                                                 const char* matrix) {
  const int warp = b.warp & 3;
  return Opaque(matrix + (b.row0 < b.rows ? FragmentAt(0, warp, b.lane)
                                          : FragmentAt(0, 0, b.quad)));
}

__device__ __forceinline__ Fragment AsFragment(const uint4& v) {
  return Fragment{{v.x, v.y, v.z, v.w}};
}

// Adds the two warpgroups' partial sums d of a 64 x 64 tile. Warpgroup w gets
// positions 32 w .. of n: e[4 n + i] as in d. One barrier.
__device__ __forceinline__ void AddWarpgroups(const Block& b,
                                              const float (&d)[32],
                                              char* exchange, float (&e)[16]) {
  float4* mine = reinterpret_cast<float4*>(exchange) + b.group * 512 + b.thread;
  const float4* other =
      reinterpret_cast<float4*>(exchange) + (1 - b.group) * 512 + b.thread;
  const bool low = b.group == 0;
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    mine[n * 128] =
        low ? make_float4(d[4 * n + 16], d[4 * n + 17], d[4 * n + 18],
                          d[4 * n + 19])
            : make_float4(d[4 * n], d[4 * n + 1], d[4 * n + 2], d[4 * n + 3]);
  }
  SyncMatrixThreads();
#pragma unroll
  for (int n = 0; n < 4; ++n) {
    const float4 v = other[n * 128];
    e[4 * n] = (low ? d[4 * n] : d[4 * n + 16]) + v.x;
    e[4 * n + 1] = (low ? d[4 * n + 1] : d[4 * n + 17]) + v.y;
    e[4 * n + 2] = (low ? d[4 * n + 2] : d[4 * n + 18]) + v.z;
    e[4 * n + 3] = (low ? d[4 * n + 3] : d[4 * n + 19]) + v.w;
  }
}

}  // namespace piserve::kernels::expert
