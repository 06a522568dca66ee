// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/collective/default_epilogue.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <type_traits>

#include "model/kernels/weight_gemm/tile.h"

namespace piserve::kernels::weight_gemm {

// How the two multiplying warpgroups of a CTA share its tiles.
using BothATile = cutlass::gemm::KernelTmaWarpSpecializedCooperative;
// One's epilogue beside the other's products.
using ATileEach = cutlass::gemm::KernelTmaWarpSpecializedPingpong;

// Weights on the MMA's M side, tokens on its N side, whose tile may be any
// multiple of 16: so few rows of a tile are empty. The two CTAs of a cluster
// share what they both load.
template <int kRows, int kTokens, typename Epilogue,
          typename Schedule = BothATile, Pairs kPairs = Pairs::kOfTokens>
struct TileKernel {
  using Element = cutlass::bfloat16_t;
  using Tile = cute::Shape<cute::Int<kRows>, cute::Int<kTokens>, cute::_64>;
  using Cluster = std::conditional_t<kPairs == Pairs::kOfTokens,
                                     cute::Shape<cute::_1, cute::_2, cute::_1>,
                                     cute::Shape<cute::_2, cute::_1, cute::_1>>;
  using Output =
      cutlass::epilogue::collective::detail::Sm90TmaWarpSpecializedAdapter<
          Epilogue>;
  using MainLoop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element,
      cutlass::layout::RowMajor, 8, Element, cutlass::layout::ColumnMajor, 8,
      float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Output::SharedStorage))>,
      Schedule>::CollectiveOp;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>,
                                           MainLoop, Output,
                                           cutlass::gemm::PersistentScheduler>>;
};

struct Operands {
  const void* w = nullptr;  // [rows, in]
  const void* x = nullptr;  // [tokens, in]
  int rows = 0;
  int tokens = 0;
  int in = 0;
  int parts = 1;  // of the inputs, each a product of its own
};

template <typename Kernel, typename EpilogueArguments>
cudaError_t LaunchTile(const Operands& o, const EpilogueArguments& epilogue,
                       int processors, cudaStream_t stream) {
  using Gemm = typename Kernel::Gemm;
  using Element = typename Kernel::Element;
  const int part = o.in / o.parts;
  const cute::Stride<std::int64_t, cute::_1, std::int64_t> strides = {
      o.in, cute::_1{}, part};
  typename Gemm::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
  arguments.problem_shape = {o.rows, o.tokens, part, o.parts};
  arguments.mainloop.ptr_A = static_cast<const Element*>(o.w);
  arguments.mainloop.dA = strides;
  arguments.mainloop.ptr_B = static_cast<const Element*>(o.x);
  arguments.mainloop.dB = strides;
  arguments.epilogue = epilogue;
  arguments.hw_info.sm_count = processors;
  Gemm gemm;
  if (Gemm::can_implement(arguments) != cutlass::Status::kSuccess) {
    return cudaErrorInvalidValue;
  }
  // Only its loads wait for the work before it, and nothing is stored that does
  // not depend on them; so it may start early (launch.cuh).
  if (gemm.initialize(arguments, /*workspace=*/nullptr, stream) !=
          cutlass::Status::kSuccess ||
      gemm.run(stream, /*cuda_adapter=*/nullptr, /*launch_with_pdl=*/true) !=
          cutlass::Status::kSuccess) {
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? cudaErrorLaunchFailure : error;
  }
  return cudaSuccess;
}

}  // namespace piserve::kernels::weight_gemm
