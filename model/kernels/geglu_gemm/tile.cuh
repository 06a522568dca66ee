// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/cutlass.h>
#include <cutlass/gemm/device/gemm_universal_adapter.h>

#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/epilogue/collective/default_epilogue.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/kernel/gemm_universal.hpp>

#include "model/kernels/geglu_gemm/epilogue.cuh"
#include "model/kernels/geglu_gemm/tile.h"

namespace piserve::kernels::geglu {

// Weights on the MMA's M side, tokens on its N side, whose tile may be any
// multiple of 16: so few rows of a tile are empty. Two CTAs that take
// neighbouring tokens share the weights they load.
template <int kTokens>
struct TileKernel {
  using Element = cutlass::bfloat16_t;
  using Tile =
      cute::Shape<cute::Int<kGegluTileRows>, cute::Int<kTokens>, cute::_64>;
  using Cluster = cute::Shape<cute::_1, cute::_2, cute::_1>;
  using Output =
      cutlass::epilogue::collective::detail::Sm90TmaWarpSpecializedAdapter<
          Epilogue<kTokens>>;
  using MainLoop = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element,
      cutlass::layout::RowMajor, 8, Element, cutlass::layout::ColumnMajor, 8,
      float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Output::SharedStorage))>,
      cutlass::gemm::KernelTmaWarpSpecializedCooperative>::CollectiveOp;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<cute::Shape<int, int, int, int>,
                                           MainLoop, Output,
                                           cutlass::gemm::PersistentScheduler>>;
};

template <int kTokens>
cudaError_t LaunchTile(const GegluGemmArgs& args, int multiprocessors,
                       cudaStream_t stream) {
  using Gemm = typename TileKernel<kTokens>::Gemm;
  using Element = typename TileKernel<kTokens>::Element;
  const cute::Stride<std::int64_t, cute::_1, std::int64_t> rows = {
      args.in, cute::_1{}, 0};
  typename Gemm::Arguments arguments{};
  arguments.mode = cutlass::gemm::GemmUniversalMode::kGemm;
  arguments.problem_shape = {2 * args.out, args.tokens, args.in, 1};
  arguments.mainloop.ptr_A = reinterpret_cast<const Element*>(args.w);
  arguments.mainloop.dA = rows;
  arguments.mainloop.ptr_B = reinterpret_cast<const Element*>(args.x);
  arguments.mainloop.dB = rows;
  arguments.epilogue = {reinterpret_cast<Element*>(args.y), args.tokens,
                        args.out};
  arguments.hw_info.sm_count = multiprocessors;
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

}  // namespace piserve::kernels::geglu
