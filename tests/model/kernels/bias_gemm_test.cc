// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/bias_gemm/bias_gemm.h"

#include <array>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/products.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

class BiasGemmTest : public KernelTest {
 protected:
  // `y` afterwards; what lies behind it is as before.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x,
                               const BiasedProjection& p, int tokens,
                               const std::vector<Bf16>& y) {
    const auto behind = NormalBf16(4096, 8);
    std::vector<Bf16> before = y;
    before.insert(before.end(), behind.begin(), behind.end());
    DeviceArray<Bf16> device_x(x), w(p.w), bias(p.bias), device_y(before);
    EXPECT_EQ(LaunchBiasGemm({.x = device_x.data(),
                              .w = w.data(),
                              .bias = bias.data(),
                              .y = device_y.data(),
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

  // Every `stride`-th output against its twin.
  static void Check(const BiasedProjection& p, int tokens, int stride) {
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const auto before =
        NormalBf16(static_cast<std::size_t>(tokens) * p.out, 10);
    const std::vector<Bf16> y = Run(x, p, tokens, before);
    ExpectEvery(
        stride, y, y.size(), std::to_string(tokens) + " tokens", [&](long at) {
          const Expected sum =
              Dot(&x[at / p.out * p.in], &p.w[at % p.out * p.in], p.in);
          const double bias = Value(p.bias[at % p.out]),
                       there = Value(before[at]);
          const double value = sum.value + bias + there;
          // Two additions in FP32, then one rounding.
          const double error =
              sum.tolerance + 2 * kFp32Half *
                                  (std::abs(sum.value) + sum.tolerance +
                                   std::abs(bias) + std::abs(there));
          return Expected{value, error + kBf16Half * (std::abs(value) + error)};
        });
  }
};

TEST_F(BiasGemmTest, EqualsItsTwinAtSmallSizes) {
  for (const int in : {192, 256, 320, 384}) {
    for (const int out : {288, 576}) Check({in, out}, /*tokens=*/768, 1);
  }
}

TEST_F(BiasGemmTest, EqualsItsTwinAtVisionsSizes) {
  Check({1152, 1152}, /*tokens=*/6144, /*stride=*/101);
  Check({4352, 1152}, /*tokens=*/6144, /*stride=*/1021);
}

TEST_F(BiasGemmTest, EqualsItsTwinInMoreThanOneWave) {
  Check({192, 1152}, /*tokens=*/6912, /*stride=*/101);
}

// Few CTAs: those of a launch find room while the one before still runs.
TEST_F(BiasGemmTest, ALaunchWaitsForTheOneBefore) {
  constexpr int kTokens = 768, kWidth = 576, kLaunches = 24;
  DeviceArray<Bf16> w(NormalBf16(
      kWidth * kWidth, 5, 0.125f / std::sqrt(static_cast<float>(kWidth))));
  DeviceArray<Bf16> bias(NormalBf16(kWidth, 6));
  ExpectLaunchesWait(kLaunches, kTokens * kWidth, [&](int i, Bf16* a, Bf16* b) {
    return LaunchBiasGemm({.x = i % 2 == 0 ? a : b,
                           .w = w.data(),
                           .bias = bias.data(),
                           .y = i % 2 == 0 ? b : a,
                           .tokens = kTokens,
                           .in = kWidth,
                           .out = kWidth},
                          nullptr);
  });
}

TEST_F(BiasGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 1152, kBy = 201;
  const BiasedProjection p(448, 576);
  ExpectPlacesDoNotMatter(p, kTokens, kBy, [&](const auto& x, const auto& y) {
    return Run(x, p, kTokens, y);
  });
}

TEST(BiasGemmSupportsTest, OnlyWhatFillsTheDeviceOnce) {
  EXPECT_TRUE(BiasGemmSupports(6144, 4352, 1152));
  EXPECT_TRUE(BiasGemmSupports(6144, 1152, 1152));
  EXPECT_TRUE(BiasGemmSupports(5760, 1152, 1152));
  EXPECT_TRUE(BiasGemmSupports(4224, 1152, 1728));
  for (const int tokens : {0, 768, 4096, 5376, 6336, 6912, 12288}) {
    EXPECT_FALSE(BiasGemmSupports(tokens, 1152, 1152)) << tokens;
  }
  EXPECT_FALSE(BiasGemmSupports(99557376, 1152, 2385504));
  EXPECT_FALSE(BiasGemmSupports(6144, 4304, 1152));
  EXPECT_FALSE(BiasGemmSupports(6144, 128, 1152));
  EXPECT_FALSE(BiasGemmSupports(6144, 1152, 1184));
}

TEST_F(BiasGemmTest, RefusesSizesItCannotTile) {
  DeviceArray<Bf16> any(384 * 320);  // more than each operand has
  for (const auto& [tokens, in, out] : {std::array{192, 192, 288},
                                        {0, 192, 288},
                                        {384, 128, 288},
                                        {384, 224, 288},
                                        {384, 192, 256}}) {
    EXPECT_EQ(LaunchBiasGemm({.x = any.data(),
                              .w = any.data(),
                              .bias = any.data(),
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
