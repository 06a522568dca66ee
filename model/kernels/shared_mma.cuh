// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <utility>

#include "model/kernels/warpgroup.cuh"

namespace piserve::kernels {

// wgmma of 64 rows by kColumns, both operands from shared memory, 16 inputs
// long.
template <int kColumns>
struct SharedMma;
template <>
struct SharedMma<136>
    : cute::SM90::GMMA::MMA_64x136x16_F32BF16BF16_SS<
          cute::SM90::GMMA::Major::K, cute::SM90::GMMA::Major::K> {};
template <>
struct SharedMma<144>
    : cute::SM90::GMMA::MMA_64x144x16_F32BF16BF16_SS<
          cute::SM90::GMMA::Major::K, cute::SM90::GMMA::Major::K> {};
template <>
struct SharedMma<192>
    : cute::SM90::GMMA::MMA_64x192x16_F32BF16BF16_SS<
          cute::SM90::GMMA::Major::K, cute::SM90::GMMA::Major::K> {};
template <>
struct SharedMma<200>
    : cute::SM90::GMMA::MMA_64x200x16_F32BF16BF16_SS<
          cute::SM90::GMMA::Major::K, cute::SM90::GMMA::Major::K> {};

template <int kCount, std::size_t... kIndex>
__device__ __forceinline__ void MultiplyShared(float (&c)[kCount],
                                               std::uint64_t a, std::uint64_t b,
                                               bool accumulate,
                                               std::index_sequence<kIndex...>) {
  using cute::SM90::GMMA::ScaleOut;
  SharedMma<2 * kCount>::fma(a, b, c[kIndex]...,
                             accumulate ? ScaleOut::One : ScaleOut::Zero);
}

// c = a b (+ c), descriptors of tiles' rows (warpgroup.cuh).
template <int kCount>
__device__ __forceinline__ void MultiplyShared(float (&c)[kCount],
                                               std::uint64_t a, std::uint64_t b,
                                               bool accumulate) {
  MultiplyShared(c, a, b, accumulate, std::make_index_sequence<kCount>());
}

// Asks for the products of 64 inputs: c[i] = a b (+ c[i]), its a `step` rows
// behind the one before.
template <int kBlocks, int kCount>
__device__ __forceinline__ void AskForProducts(float (&c)[kBlocks][kCount],
                                               std::uint64_t a, int step,
                                               std::uint64_t b,
                                               bool accumulate) {
#pragma unroll
  for (auto& block : c) HoldRegisters(block);
  WgmmaFence();
#pragma unroll
  for (int k = 0; k < 4; ++k) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      MultiplyShared(c[i], AtRow(a + (k * 32 >> 4), i * step),
                     b + (k * 32 >> 4), accumulate || k > 0);
    }
  }
  WgmmaCommit();
}

}  // namespace piserve::kernels
