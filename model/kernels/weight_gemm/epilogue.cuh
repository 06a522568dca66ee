// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/bfloat16.h>
#include <cutlass/cutlass.h>
#include <cutlass/epilogue/dispatch_policy.hpp>
#include <cutlass/gemm/dispatch_policy.hpp>

#include <cstdint>
#include <cute/tensor.hpp>

namespace piserve::kernels::weight_gemm {

// What CUTLASS asks of an epilogue that goes straight from the accumulators to
// global memory (Sm90TmaWarpSpecializedAdapter): no source, no shared memory,
// no workspace. A kind adds its Arguments and operator().
struct EpilogueBase {
  using Element = cutlass::bfloat16_t;
  using EpilogueSchedule = cutlass::gemm::EpilogueDefault;
  using DispatchPolicy = EpilogueSchedule;
  using ElementOutput = Element;
  using ElementAccumulator = float;
  using ElementCompute = float;
  using ElementScalar = float;
  using ElementC = Element;
  using ElementD = Element;
  using StrideC = cute::Stride<std::int64_t, cute::_1, std::int64_t>;
  using StrideD = StrideC;
  using GmemTiledCopyC = void;
  using GmemTiledCopyD = void;
  struct ThreadEpilogueOp {
    using ElementOutput = Element;
    using ElementAccumulator = float;
    using ElementCompute = float;
    using ElementD = Element;
    using ElementScalar = float;
    static constexpr int kCount = 1;
    static constexpr bool IsPerRowScaleSupported = false;
    static constexpr bool IsPerColScaleSupported = false;
  };
  static constexpr int kOutputAlignment = 1;
  struct SharedStorage {};
  using TensorStorage = SharedStorage;

  template <typename Problem, typename Arguments>
  static constexpr Arguments to_underlying_arguments(const Problem&,
                                                     const Arguments& args,
                                                     void*) {
    return args;
  }
  template <typename Problem, typename Arguments>
  static std::size_t get_workspace_size(const Problem&, const Arguments&) {
    return 0;
  }
  template <typename Problem, typename Arguments>
  static cutlass::Status initialize_workspace(
      const Problem&, const Arguments&, void*, cudaStream_t,
      cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }
  template <typename Problem, typename Arguments>
  static bool can_implement(const Problem&, const Arguments&) {
    return true;
  }
  CUTLASS_DEVICE bool is_source_needed() { return false; }
};

// Where a thread's accumulators lie. Element 4 g + r of half h, in order (h, g,
// r), of a tile that `warps` warps share, 16 rows of each half to a warp: weight
// row 16 (warps h + warp) + lane / 4 (+ 8 for r >= 2), token 8 g + 2 (lane % 4)
// + r % 2.
struct Place {
  int lane, warp;
  CUTLASS_DEVICE explicit Place(int thread)
      : lane(thread % 32), warp(thread / 32) {}
};

}  // namespace piserve::kernels::weight_gemm
