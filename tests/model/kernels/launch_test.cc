// SPDX-License-Identifier: Apache-2.0
// Our kernels are launched with programmatic dependent launch; these are the
// places in a stream and in a graph where they must still wait their turn.
#include "model/kernels/norm.h"
#include "tests/model/kernels/device.h"

namespace piserve::kernels {
namespace {

constexpr int kRows = 2000, kWidth = 2048, kChain = 24;

class LaunchTest : public KernelTest {
 protected:
  LaunchTest()
      : start_(NormalBf16(static_cast<std::size_t>(kRows) * kWidth, 1)),
        gain_(Normal(kWidth, 2, 0.1f, 1)) {}

  // A chain in which every kernel reads what the one before it wrote.
  void Chain(Bf16* a, Bf16* b, const float* gain, cudaStream_t stream) {
    for (int i = 0; i < kChain; ++i) {
      EXPECT_EQ(LaunchRmsNorm(i % 2 == 0 ? a : b, gain, i % 2 == 0 ? b : a,
                              kRows, kWidth, stream),
                cudaSuccess);
    }
  }

  // The same with a wait after each.
  std::vector<Bf16> Serial() {
    DeviceArray<Bf16> a(start_), b(start_.size());
    DeviceArray<float> gain(gain_);
    for (int i = 0; i < kChain; ++i) {
      EXPECT_EQ(LaunchRmsNorm(i % 2 == 0 ? a.data() : b.data(), gain.data(),
                              i % 2 == 0 ? b.data() : a.data(), kRows, kWidth,
                              nullptr),
                cudaSuccess);
      EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    }
    return a.Get();
  }

  std::vector<Bf16> start_;
  std::vector<float> gain_;
};

TEST_F(LaunchTest, AChainInAStreamEqualsTheSerialOne) {
  DeviceArray<Bf16> a(start_), b(start_.size());
  DeviceArray<float> gain(gain_);
  Chain(a.data(), b.data(), gain.data(), nullptr);
  EXPECT_TRUE(SameBits(a.Get(), Serial()));
}

// In a graph: behind a copy, behind a fork's join, and in front of a copy.
TEST_F(LaunchTest, AChainInAGraphEqualsTheSerialOne) {
  DeviceArray<Bf16> a(start_.size()), b(start_.size()), from(start_);
  DeviceArray<Bf16> side(start_.size()), out(start_.size());
  DeviceArray<float> gain(gain_);
  const std::size_t bytes = start_.size() * sizeof(Bf16);
  cudaStream_t stream, other;
  cudaEvent_t forked, joined;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamCreate(&other), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&forked), cudaSuccess);
  ASSERT_EQ(cudaEventCreate(&joined), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
            cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(a.data(), from.data(), bytes,
                            cudaMemcpyDeviceToDevice, stream),
            cudaSuccess);
  Chain(a.data(), b.data(), gain.data(), stream);
  EXPECT_EQ(cudaEventRecord(forked, stream), cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(other, forked), cudaSuccess);
  EXPECT_EQ(
      LaunchRmsNorm(a.data(), gain.data(), side.data(), kRows, kWidth, other),
      cudaSuccess);
  EXPECT_EQ(cudaEventRecord(joined, other), cudaSuccess);
  EXPECT_EQ(
      LaunchRmsNorm(a.data(), gain.data(), b.data(), kRows, kWidth, stream),
      cudaSuccess);
  EXPECT_EQ(cudaStreamWaitEvent(stream, joined), cudaSuccess);
  // x += y across the join; h is a scratch.
  AddNormArgs args;
  args.x = side.data();
  args.y = b.data();
  args.h = out.data();
  args.scale.base = gain.data();
  args.rows = kRows;
  args.width = kWidth;
  EXPECT_EQ(LaunchAddRmsNorm(args, stream), cudaSuccess);
  EXPECT_EQ(cudaMemcpyAsync(b.data(), side.data(), bytes,
                            cudaMemcpyDeviceToDevice, stream),
            cudaSuccess);
  cudaGraph_t graph;
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  cudaGraphExec_t executable;
  ASSERT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);

  const auto serial = Serial();
  DeviceArray<Bf16> last(serial), twice(serial.size());
  ASSERT_EQ(LaunchRmsNorm(last.data(), gain.data(), twice.data(), kRows, kWidth,
                          nullptr),
            cudaSuccess);
  std::vector<Bf16> want = twice.Get();
  for (Bf16& v : want) v = __float2bfloat16_rn(2 * __bfloat162float(v));
  for (int replay = 0; replay < 5; ++replay) {
    ASSERT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
    ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    EXPECT_TRUE(SameBits(a.Get(), serial)) << replay;
    EXPECT_TRUE(SameBits(b.Get(), want)) << replay;
  }
  cudaGraphExecDestroy(executable);
  cudaGraphDestroy(graph);
  cudaEventDestroy(forked);
  cudaEventDestroy(joined);
  cudaStreamDestroy(other);
  cudaStreamDestroy(stream);
}

}  // namespace
}  // namespace piserve::kernels
