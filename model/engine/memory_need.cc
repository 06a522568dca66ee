// SPDX-License-Identifier: Apache-2.0
#include "model/engine/memory_need.h"

#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>

#include "absl/status/status.h"

namespace piserve::engine {

double TensorBytes() {
  if (!c10::cuda::CUDACachingAllocator::get()->initialized()) return 0;
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(
      c10::cuda::current_device());
  return static_cast<double>(stats.requested_bytes[0].current);  // of all pools
}

absl::StatusOr<MemoryNeed> MemoryNeed::Measure(const Variant& variant,
                                               const EngineWeights& weights,
                                               RopeTable rope) {
  const auto bytes = [&](const Capacity& capacity) {
    const double before = TensorBytes();
    const Buffers buffers(variant, weights, capacity, rope);
    return TensorBytes() - before;
  };
  try {
    MemoryNeed need;
    need.one_ = bytes({.rows = 1, .micro_rows = 1});
    need.row_ = bytes({.rows = 2, .micro_rows = 1}) - need.one_;
    need.micro_row_ = bytes({.rows = 1, .micro_rows = 2}) - need.one_;
    return need;
  } catch (const c10::OutOfMemoryError& e) {
    return absl::FailedPreconditionError(e.what_without_backtrace());
  }
}

}  // namespace piserve::engine
