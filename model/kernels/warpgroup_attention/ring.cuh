// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "model/kernels/warpgroup_attention/work.cuh"

// The ring of tiles of k and v: a thread fills it, and the warps of the
// consumers and of those that clean a last tile take every tile in turn.
namespace piserve::kernels::warpgroup_attention {

// A place in the ring of tiles. Producer and consumers count alike: k0, k1, v0,
// k2, v1, ..., the last v.
struct Place {
  int slot = 0;
  int parity = 0;

  __device__ void Next() {
    if (++slot < kSlots) return;
    slot = 0;
    parity ^= 1;
  }
};

// Warps that take tiles: all but the producer's.
inline constexpr int kTakers = kThreads / 32 - 1;

// Waits for the next tile and tells its slot.
__device__ inline int Take(Shared& shared, Place& place) {
  BarrierWait(&shared.full[place.slot], place.parity);
  const int slot = place.slot;
  place.Next();
  return slot;
}

// Whether a warp that frees a place has written there, too: a peer's copy to it
// must not pass that.
enum class Left { kRead, kWritten };

// Frees a tile's place: one arrival a warp, here and at each peer that fills
// it.
template <int kPeers, Left kLeft = Left::kRead>
__device__ void Release(Shared& shared, int slot, int lane) {
  __syncwarp();
  if constexpr (kPeers == 1) {
    if (lane == 0) BarrierArrive(&shared.empty[slot]);
  } else if constexpr (kLeft == Left::kRead) {
    if (lane < kPeers) BarrierArriveAfterReads(&shared.empty[slot], lane);
  } else {
    if (lane < kPeers) BarrierArriveAfterWrites(&shared.empty[slot], lane);
  }
}

}  // namespace piserve::kernels::warpgroup_attention
