// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <string>

namespace piserve::kernels {

// What one H200 gives (docs/benchmarks.md): the roofs that shares refer to.
inline constexpr double kHbmBytesPerSecond = 4.59e12;
inline constexpr double kBf16FlopsPerSecond = 790e12;

struct KernelCase {
  std::string name;
  double bytes = 0;  // that must cross HBM once, of one launch
  double flops = 0;  // on tensor cores
  int sets = 1;      // of buffers, so that L2 does not hold the inputs
  // Compares one launch with its twin.
  std::function<void()> check;
  // Enqueues a launch on buffers `set`.
  std::function<cudaError_t(int set, cudaStream_t stream)> launch;
};

// How many sets of `bytes` exceed the L2 three times over.
int SetsFor(double bytes);

// Runs the check, then times launches back to back in a graph, boundary
// included, and prints a line: median us of a launch, GB/s, TFLOP/s, share of
// the roofline. False if the check failed.
bool CheckAndTime(const KernelCase& kernel);

}  // namespace piserve::kernels
