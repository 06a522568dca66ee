// SPDX-License-Identifier: Apache-2.0
#include "model/engine/stage_timer.h"

#include <ATen/cuda/CUDAContextLight.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

namespace piserve::engine {
namespace {

// CUDA takes an event that was never recorded for one that has come.
TEST(StageTimerTest, AnEventThatCannotBeRecordedFailsTheWave) {
  if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
  cudaStream_t stream = nullptr;
  ASSERT_EQ(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking),
            cudaSuccess);
  StageTimer timer(stream);
  timer.Record(Stage::kBegin);
  timer.Record(Stage::kEnd);
  EXPECT_TRUE(timer.Wait().ok());

  // Waiting is not allowed here: the capture, and all that comes, is invalid.
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed),
            cudaSuccess);
  EXPECT_NE(cudaStreamSynchronize(stream), cudaSuccess);
  timer.Record(Stage::kBegin);
  timer.Record(Stage::kEnd);
  EXPECT_EQ(timer.Wait().code(), absl::StatusCode::kInternal);
  cudaGraph_t graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  cudaGetLastError();

  timer.Record(Stage::kBegin);
  timer.Record(Stage::kEnd);
  EXPECT_TRUE(timer.Wait().ok());
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace piserve::engine
