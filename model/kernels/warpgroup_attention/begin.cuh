// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/launch.cuh"
#include "model/kernels/prefix_attention.h"
#include "model/kernels/warpgroup_attention/work.cuh"

// How a launch waits for the work before it. A second one does so twice: at its
// begin by the first one's word, which releases what that one's wait has
// acquired, and at its end for the first one itself, whose results the kernel
// behind must find as well. So its CTAs take the multiprocessors that the first
// one's leave. They start behind the first one's wait, lest they find the word
// of the call before, which that one's second launch has yet to take back.
namespace piserve::kernels::warpgroup_attention {

constexpr int kBeginThread = 32;  // none that copies

struct Begun {
  unsigned said;  // by the first launch
  unsigned seen;  // by how many CTAs of the second
};
static_assert(sizeof(Begun) == kPrefixAttentionWords * sizeof(unsigned));

__device__ inline Begun& BegunOf(const Params& p) {
  return *reinterpret_cast<Begun*>(p.args.begun);
}

__device__ inline void SayBegun(const Params& p) {
  asm volatile("st.release.gpu.global.u32 [%0], 1;\n" ::"l"(&BegunOf(p).said)
               : "memory");
}

__device__ inline void AwaitBegun(const Params& p) {
  unsigned said;
  do {
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];\n"
                 : "=r"(said)
                 : "l"(&BegunOf(p).said)
                 : "memory");
  } while (said == 0);
}

// The last CTA to have seen the word takes it back, for the next call.
__device__ inline void CountSeen(const Params& p) {
  Begun& begun = BegunOf(p);
  unsigned before;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], 1;\n"
               : "=r"(before)
               : "l"(&begun.seen)
               : "memory");
  if (before + 1 == gridDim.x * gridDim.y) {
    begun.said = 0;
    begun.seen = 0;
  }
}

// In front of a barrier of the CTA, behind which a second launch may read what
// the work before both has written.
__device__ inline void AwaitFirst(const Params& p) {
  if (p.turn == Turn::kSecond && threadIdx.x == kBeginThread) AwaitBegun(p);
}

// Behind that barrier.
__device__ inline void Begin(const Params& p) {
  const bool one = threadIdx.x == kBeginThread;
  if (p.turn == Turn::kSecond) {
    if (one) CountSeen(p);
    return;
  }
  WaitForPrevious();
  if (p.turn != Turn::kFirst) return;
  LetNextStart();
  if (one && blockIdx.x == 0 && blockIdx.y == 0) SayBegun(p);
}

__device__ inline void End(const Params& p) {
  if (p.turn == Turn::kSecond) WaitForPrevious();
}

}  // namespace piserve::kernels::warpgroup_attention
