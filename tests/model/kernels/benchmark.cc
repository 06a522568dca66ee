// SPDX-License-Identifier: Apache-2.0
#include "tests/model/kernels/benchmark.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <vector>

namespace piserve::kernels {
namespace {

constexpr int kReplays = 15;
constexpr int kLeastLaunches = 64;

void Need(cudaError_t error) {
  ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

cudaGraphExec_t Capture(const KernelCase& kernel, int launches,
                        cudaStream_t stream) {
  Need(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) {
    Need(kernel.launch(i % kernel.sets, stream));
  }
  cudaGraph_t graph = nullptr;
  Need(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable = nullptr;
  Need(cudaGraphInstantiate(&executable, graph));
  cudaGraphDestroy(graph);
  return executable;
}

// Median us of one launch.
double Time(const KernelCase& kernel) {
  const int launches = std::max(kLeastLaunches, kernel.sets);
  cudaStream_t stream;
  cudaEvent_t begin, end;
  Need(cudaStreamCreate(&stream));
  Need(cudaEventCreate(&begin));
  Need(cudaEventCreate(&end));
  cudaGraphExec_t graph = Capture(kernel, launches, stream);
  std::vector<float> times;
  for (int i = -3; i < kReplays; ++i) {
    float ms = 0;
    Need(cudaEventRecord(begin, stream));
    Need(cudaGraphLaunch(graph, stream));
    Need(cudaEventRecord(end, stream));
    Need(cudaEventSynchronize(end));
    Need(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  cudaGraphExecDestroy(graph);
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaStreamDestroy(stream);
  return times[kReplays / 2] * 1e3 / launches;
}

}  // namespace

int SetsFor(double bytes) {
  constexpr double kTripleL2 = 180e6;
  return std::clamp(static_cast<int>(kTripleL2 / bytes) + 1, 2, 256);
}

bool CheckAndTime(const KernelCase& kernel) {
  kernel.check();
  if (::testing::Test::HasFailure()) {
    std::printf("%-44s WRONG\n", kernel.name.c_str());
    return false;
  }
  const double us = Time(kernel);
  const double floor = std::max(kernel.bytes / kHbmBytesPerSecond,
                                kernel.flops / kBf16FlopsPerSecond) *
                       1e6;
  std::printf("%-44s %9.2f us %8.0f GB/s %7.1f TFLOP/s %6.1f %% of roof\n",
              kernel.name.c_str(), us, kernel.bytes / us * 1e-3,
              kernel.flops / us * 1e-6, 100 * floor / us);
  std::fflush(stdout);
  return !::testing::Test::HasFailure();
}

}  // namespace piserve::kernels
