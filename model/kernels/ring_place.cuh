// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::kernels {

// A stage of a ring, and the parity of its barriers' phase when it comes. Who
// fills the ring and who empties it count alike.
template <int kStages>
struct RingPlace {
  int stage = 0;
  int parity = 0;

  __device__ __forceinline__ void Next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
  __device__ __forceinline__ RingPlace Before() const {
    return stage == 0 ? RingPlace{kStages - 1, parity ^ 1}
                      : RingPlace{stage - 1, parity};
  }
};

}  // namespace piserve::kernels
