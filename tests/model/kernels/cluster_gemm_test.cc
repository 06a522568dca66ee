// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/cluster_gemm/cluster_gemm.h"

#include <array>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/products.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

enum class To { kNothing, kWhatIsThere };

class ClusterGemmTest : public KernelTest {
 protected:
  // `y` afterwards; what lies behind it is as before.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x, const Projection& p,
                               int tokens, const std::vector<Bf16>& y,
                               To to = To::kWhatIsThere) {
    const auto behind = NormalBf16(4096, 8);
    std::vector<Bf16> before = y;
    before.insert(before.end(), behind.begin(), behind.end());
    DeviceArray<Bf16> device_x(x), w(p.w), device_y(before);
    EXPECT_EQ(LaunchClusterGemm({.x = device_x.data(),
                                 .w = w.data(),
                                 .y = device_y.data(),
                                 .adds = to == To::kWhatIsThere,
                                 .tokens = tokens,
                                 .in = p.in,
                                 .out = p.out},
                                nullptr),
              cudaSuccess);
    std::vector<Bf16> after = device_y.Get();
    ExpectTail(after, behind, std::to_string(tokens) + " tokens");
    after.resize(y.size());
    return after;
  }

  // Every `stride`-th output against its twin; what is replaced is NaN.
  static void Check(const Projection& p, int tokens, int stride, To to) {
    const std::size_t size = static_cast<std::size_t>(tokens) * p.out;
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const bool adds = to == To::kWhatIsThere;
    const auto before = adds
                            ? NormalBf16(size, 10)
                            : std::vector<Bf16>(size, __float2bfloat16_rn(NAN));
    const std::vector<Bf16> y = Run(x, p, tokens, before, to);
    ExpectEvery(
        stride, y, size, std::to_string(tokens) + " tokens", [&](long at) {
          const Expected sum =
              Dot(&x[at / p.out * p.in], &p.w[at % p.out * p.in], p.in);
          const double there = adds ? Value(before[at]) : 0;
          const double value = sum.value + there;
          // An addition in FP32, then one rounding.
          const double error =
              sum.tolerance + kFp32Half * (std::abs(sum.value) + sum.tolerance +
                                           std::abs(there));
          return Expected{value, error + kBf16Half * (std::abs(value) + error)};
        });
  }
};

TEST_F(ClusterGemmTest, EqualsItsTwinAtSmallSizes) {
  for (const int tokens : {1, 7, 8, 63, 136, 137, 200}) {
    for (const int out : {128, 256}) {
      Check({256, out}, tokens, 1, To::kWhatIsThere);
    }
    Check({512, 128}, tokens, 1, To::kNothing);
  }
}

// Fewer stages than the ring has, as many, and more.
TEST_F(ClusterGemmTest, EqualsItsTwinWithAnyNumberOfInputs) {
  for (const int in : {256, 768, 1024, 1280, 2304}) {
    Check({in, 128}, /*tokens=*/150, /*stride=*/7, To::kWhatIsThere);
  }
}

TEST_F(ClusterGemmTest, EqualsItsTwinAtTheExpertsSizes) {
  for (const int tokens : {300, 400, 408}) {
    for (const int in : {2048, 4096}) {
      Check({in, 1024}, tokens, /*stride=*/101, To::kWhatIsThere);
      Check({in, 1024}, tokens, /*stride=*/101, To::kNothing);
    }
  }
}

TEST_F(ClusterGemmTest, EqualsItsTwinInMoreThanOneWave) {
  Check({256, 1024}, /*tokens=*/1500, /*stride=*/31, To::kWhatIsThere);
}

// Few CTAs: those of a launch find room while the one before still runs.
TEST_F(ClusterGemmTest, ALaunchWaitsForTheOneBefore) {
  constexpr int kTokens = 136, kWidth = 512, kLaunches = 24;
  DeviceArray<Bf16> w(NormalBf16(
      kWidth * kWidth, 5, 0.125f / std::sqrt(static_cast<float>(kWidth))));
  const auto add = [&](const Bf16* x, Bf16* y) {
    return LaunchClusterGemm({.x = x,
                              .w = w.data(),
                              .y = y,
                              .adds = true,
                              .tokens = kTokens,
                              .in = kWidth,
                              .out = kWidth},
                             nullptr);
  };
  ExpectLaunchesWait(kLaunches, kTokens * kWidth, [&](int i, Bf16* a, Bf16* b) {
    return i % 2 == 0 ? add(a, b) : add(b, a);
  });
  // With what it adds to, too.
  ExpectLaunchesWait(kLaunches, kTokens * kWidth,
                     [&](int, Bf16* a, Bf16* b) { return add(a, b); });
}

TEST_F(ClusterGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 400, kBy = 101;
  const Projection p(2048, 256);
  ExpectPlacesDoNotMatter(p, kTokens, kBy, [&](const auto& x, const auto& y) {
    return Run(x, p, kTokens, y);
  });
}

TEST(ClusterGemmSupportsTest, OnlyWhatFillsTheDeviceOnce) {
  for (const int tokens : {388, 400, 408}) {
    EXPECT_TRUE(ClusterGemmSupports(tokens, 2048, 1024)) << tokens;
    EXPECT_TRUE(ClusterGemmSupports(tokens, 4096, 1024)) << tokens;
  }
  for (const int tokens : {-1, 0, 50, 272, 387, 409, 3200, 2147483647}) {
    EXPECT_FALSE(ClusterGemmSupports(tokens, 4096, 1024)) << tokens;
  }
  EXPECT_TRUE(ClusterGemmSupports(408, 4096, 1280));   // 30 clusters
  EXPECT_FALSE(ClusterGemmSupports(408, 4096, 1408));  // 33
  EXPECT_FALSE(ClusterGemmSupports(544, 4096, 1024));  // 32
  EXPECT_FALSE(ClusterGemmSupports(408, 4096, 896));   // 21
  EXPECT_FALSE(ClusterGemmSupports(400, 4096 + 64, 1024));
  EXPECT_FALSE(ClusterGemmSupports(400, 4096 + 128, 1024));
  EXPECT_FALSE(ClusterGemmSupports(400, 1024, 1024));
  EXPECT_FALSE(ClusterGemmSupports(400, 4096, 1056));
}

TEST_F(ClusterGemmTest, RefusesSizesItCannotTile) {
  DeviceArray<Bf16> any(512 * 320);  // more than each operand has
  for (const auto& [tokens, in, out] : {std::array{0, 256, 128},
                                        {8, 0, 128},
                                        {2147483647, 256, 128},
                                        {8, 320, 128},
                                        {8, 384, 128},
                                        {8, 256, 65536 * 128},
                                        {8, 256, 64},
                                        {8, 256, 0}}) {
    EXPECT_EQ(LaunchClusterGemm({.x = any.data(),
                                 .w = any.data(),
                                 .y = any.data(),
                                 .tokens = tokens,
                                 .in = in,
                                 .out = out},
                                nullptr),
              cudaErrorInvalidValue)
        << tokens << " " << in << " " << out;
  }
}

}  // namespace
}  // namespace piserve::kernels
