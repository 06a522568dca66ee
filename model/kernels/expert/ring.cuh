// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// The stream of weights and cached keys: one warp copies them, in the order of
// use, into a ring of 16 KB slots in shared memory that runs on across stages,
// layers and steps; the matrix warps take and release slots. What it copies was
// written by earlier kernels only.
namespace piserve::kernels::expert {

inline constexpr int kSlots = 10;
inline constexpr int kSlotBytes = 16384;
// Copies on their way at a time. A deep ring is for capacity: in bursts it
// delays the small packets that blocks wait for.
inline constexpr int kInFlight = 1;
// Arrivals that free a slot, one for each matrix thread.
inline constexpr int kArrivals = 256;

struct RingBarriers {
  std::uint64_t full[kSlots];
  std::uint64_t empty[kSlots];
};

__device__ __forceinline__ std::uint32_t SharedAddress(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void BarrierInit(std::uint64_t* barrier, int count) {
  asm volatile(
      "mbarrier.init.shared.b64 [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(count)
      : "memory");
}

__device__ __forceinline__ void BarrierWait(std::uint64_t* barrier,
                                            unsigned parity) {
  std::uint32_t done = 0;
  while (done == 0) {
    asm volatile(
        "{\n.reg .pred p;\n"
        "mbarrier.try_wait.parity.shared.b64 p, [%1], %2;\n"
        "selp.u32 %0, 1, 0, p;\n}"
        : "=r"(done)
        : "r"(SharedAddress(barrier)), "r"(parity)
        : "memory");
  }
}

__device__ __forceinline__ void BarrierArrive(std::uint64_t* barrier,
                                              int times) {
  asm volatile(
      "mbarrier.arrive.shared.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(times)
      : "memory");
}

// Slot number n of the whole run, counted alike by producer and readers.
__device__ __forceinline__ void WaitFull(RingBarriers* ring, int n) {
  BarrierWait(&ring->full[n % kSlots], (n / kSlots) & 1);
}

// `times` of a slot's arrivals.
__device__ __forceinline__ void Release(RingBarriers* ring, int n, int times) {
  BarrierArrive(&ring->empty[n % kSlots], times);
}

__device__ __forceinline__ void RingInit(RingBarriers* ring) {
  for (int i = 0; i < kSlots; ++i) {
    BarrierInit(&ring->full[i], 1);
    BarrierInit(&ring->empty[i], kArrivals);
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

enum class Reuse { kOnce, kAgain };  // streamed past L2, or worth keeping

// The copying lane's side.
class Producer {
 public:
  __device__ Producer(char* slots, RingBarriers* ring)
      : slots_(slots), ring_(ring) {
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;"
                 : "=l"(once_));
  }

  __device__ __forceinline__ void Put(const char* source, int bytes,
                                      Reuse reuse) {
    const int slot = n_ % kSlots;
    BarrierWait(&ring_->empty[slot], ((n_ / kSlots) & 1) ^ 1);
    if (n_ >= kInFlight) WaitFull(ring_, n_ - kInFlight);
    const std::uint32_t full = SharedAddress(&ring_->full[slot]);
    const std::uint32_t to = SharedAddress(slots_ + slot * kSlotBytes);
    asm volatile(
        "mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(full),
        "r"(bytes)
        : "memory");
    if (reuse == Reuse::kOnce) {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
          ".L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(to),
          "l"(source), "r"(bytes), "r"(full), "l"(once_)
          : "memory");
    } else {
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
          " [%0], [%1], %2, [%3];" ::"r"(to),
          "l"(source), "r"(bytes), "r"(full)
          : "memory");
    }
    ++n_;
  }

 private:
  char* slots_;
  RingBarriers* ring_;
  std::uint64_t once_ = 0;
  int n_ = 0;
};

}  // namespace piserve::kernels::expert
