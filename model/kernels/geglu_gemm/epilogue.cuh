// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cutlass/bfloat16.h>
#include <cutlass/cutlass.h>
#include <cutlass/gemm/gemm.h>

#include <cstdint>
#include <cute/tensor.hpp>

namespace piserve::kernels::geglu {

__device__ inline float GeluTanh(float x) {
  const float inner = x * (0.7978845608f + 0.0356774081f * x * x);
  float tanh;
  asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(inner));
  const float half = 0.5f * x;
  return half + half * tanh;
}

// bf16 of `low` and `high` in one word.
__device__ inline std::uint32_t Pack(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// A warp's 8 x 8 matrix of 16-bit elements, two to a lane, transposed.
__device__ inline std::uint32_t Transpose(std::uint32_t word) {
  std::uint32_t transposed;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;"
               : "=r"(transposed)
               : "r"(word));
  return transposed;
}

// From the accumulators of a tile of kGegluTileRows weight rows by kTokens
// tokens, held by two warpgroups, straight to global memory. The members are
// what CUTLASS asks of an epilogue (Sm90TmaWarpSpecializedAdapter).
template <int kTokens>
struct Epilogue {
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

  struct Arguments {
    Element* y = nullptr;  // [tokens, out]
    int tokens = 0;
    int out = 0;
  };
  using Params = Arguments;

  template <typename Problem>
  static constexpr Params to_underlying_arguments(const Problem&,
                                                  const Arguments& args,
                                                  void*) {
    return args;
  }
  template <typename Problem>
  static std::size_t get_workspace_size(const Problem&, const Arguments&) {
    return 0;
  }
  template <typename Problem>
  static cutlass::Status initialize_workspace(
      const Problem&, const Arguments&, void*, cudaStream_t,
      cutlass::CudaHostAdapter* = nullptr) {
    return cutlass::Status::kSuccess;
  }
  template <typename Problem>
  static bool can_implement(const Problem&, const Arguments&) {
    return true;
  }

  CUTLASS_HOST_DEVICE explicit Epilogue(const Params& params,
                                        const SharedStorage& = {})
      : params(params) {}
  CUTLASS_DEVICE bool is_source_needed() { return false; }

  // Element 4 g + r of half h, in order (h, g, r): weight row
  // 128 h + 16 warp + lane / 4 (+ 8 for r >= 2), token
  // 8 g + 2 (lane % 4) + r % 2.
  template <typename Problem, typename TileShape, typename TileCoord,
            typename Engine, typename Layout, typename Mma, typename Residue>
  CUTLASS_DEVICE void operator()(
      Problem, TileShape, TileCoord tile,
      const cute::Tensor<Engine, Layout>& accumulators, Mma, Residue,
      int thread, char*) {
    constexpr int kGroups = kTokens / 8;
    static_assert(decltype(cute::size(accumulators))::value == 8 * kGroups);
    const int lane = thread % 32, warp = thread / 32;
    const int output = cute::get<0>(tile) * 128 + warp * 16 + lane % 4 * 4;
    const auto product = [&](int i) {
      return Pack(GeluTanh(accumulators(i)) * accumulators(i + 2),
                  GeluTanh(accumulators(i + 1)) * accumulators(i + 3));
    };
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const uint2 four = {Transpose(product(4 * g)),
                          Transpose(product(4 * (kGroups + g)))};
      const int token = cute::get<1>(tile) * kTokens + g * 8 + lane / 4;
      if (token >= params.tokens) continue;
      const std::int64_t at = std::int64_t{token} * params.out + output;
      *reinterpret_cast<uint2*>(params.y + at) = four;
    }
  }

  Params params;
};

}  // namespace piserve::kernels::geglu
