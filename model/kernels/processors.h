// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

namespace piserve::kernels {

// Those of an H200, by which choices of tiles count waves: a choice by what is
// there would make a row's bits depend on it. Elsewhere they are right, if not
// the fastest.
inline constexpr int kTargetProcessors = 132;

// Clusters of four CTAs, one a multiprocessor, that it holds at once: not 33,
// since of some of its groups of multiprocessors two are left over.
inline constexpr int kTargetClustersOfFour = 30;

constexpr int CeilDiv(int a, int b) { return (a + b - 1) / b; }

// Multiprocessors of the current device.
inline cudaError_t Processors(int* count) {
  int device = 0;
  if (cudaError_t e = cudaGetDevice(&device); e != cudaSuccess) return e;
  return cudaDeviceGetAttribute(count, cudaDevAttrMultiProcessorCount, device);
}

}  // namespace piserve::kernels
