// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "model/kernels/ring_place.cuh"
#include "model/kernels/tma.cuh"
#include "model/kernels/warpgroup.cuh"

// Rings of tiles of k or v: a thread fills one, and warps take every tile of it
// in turn. All count alike: k0, k1, v0, k2, v1, ..., the last v.
namespace piserve::kernels::warpgroup_attention {

template <int kSlots>
struct RingBarriers {
  std::uint64_t full[kSlots], empty[kSlots];

  // Every tile is let go of by so many warps.
  __device__ void Init(int takers) {
    for (std::uint64_t& barrier : full) BarrierInit(&barrier, 1);
    for (std::uint64_t& barrier : empty) BarrierInit(&barrier, takers);
  }
};

// Waits for the next tile and tells its slot.
template <int kSlots>
__device__ inline int Take(RingBarriers<kSlots>& ring,
                           RingPlace<kSlots>& place) {
  BarrierWait(&ring.full[place.stage], place.parity);
  const int slot = place.stage;
  place.Next();
  return slot;
}

// Whether a warp that frees a place has written there, too: a peer's copy to it
// must not pass that.
enum class Left { kRead, kWritten };

// Frees a tile's place: one arrival a warp, here and at each peer that fills
// it.
template <int kPeers, Left kLeft = Left::kRead, int kSlots>
__device__ void Release(RingBarriers<kSlots>& ring, int slot, int lane) {
  __syncwarp();
  if constexpr (kPeers == 1) {
    if (lane == 0) BarrierArrive(&ring.empty[slot]);
  } else if constexpr (kLeft == Left::kRead) {
    if (lane < kPeers) BarrierArriveAfterReads(&ring.empty[slot], lane);
  } else {
    if (lane < kPeers) BarrierArriveAfterWrites(&ring.empty[slot], lane);
  }
}

}  // namespace piserve::kernels::warpgroup_attention
