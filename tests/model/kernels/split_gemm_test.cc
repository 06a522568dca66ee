// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/split_gemm.h"

#include <algorithm>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

constexpr int kIn = 16384, kOut = 2048, kHalf = kIn / 2;

class SplitGemmTest : public KernelTest {
 protected:
  static const std::vector<Bf16>& Weights() {
    static const auto* w = new std::vector<Bf16>(
        NormalBf16(std::size_t{kIn} * kOut, 3, 1 / 128.0f));
    return *w;
  }

  static std::vector<float> Run(const std::vector<Bf16>& x, int tokens) {
    DeviceArray<Bf16> device_x(x), w(Weights());
    DeviceArray<float> parts(std::size_t{2} * tokens * kOut);
    EXPECT_EQ(LaunchSplitGemm({.x = device_x.data(),
                               .w = w.data(),
                               .parts = parts.data(),
                               .tokens = tokens,
                               .in = kIn,
                               .out = kOut},
                              nullptr),
              cudaSuccess);
    return parts.Get();
  }
};

TEST_F(SplitGemmTest, EqualsItsTwinAtEveryPrefixItServes) {
  for (const int tokens : {560, 576, 788, 816, 832}) {
    ASSERT_TRUE(SplitGemmSupports(tokens, kIn, kOut)) << tokens;
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * kIn, tokens);
    const auto parts = Run(x, tokens);
    ExpectEvery(/*stride=*/tokens * 2 + 1, parts, parts.size(),
                std::to_string(tokens) + " tokens", [&](long at) {
                  const long part = at / (long{tokens} * kOut);
                  const long token = at / kOut % tokens, output = at % kOut;
                  return Dot(&x[token * kIn + part * kHalf],
                             &Weights()[output * kIn + part * kHalf], kHalf);
                });
    for (const float value : parts) ASSERT_TRUE(std::isfinite(value)) << tokens;
  }
}

TEST_F(SplitGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 816;
  const auto x = NormalBf16(std::size_t{kTokens} * kIn, 9);
  const auto first = Run(x, kTokens);
  EXPECT_TRUE(SameBits(first, Run(x, kTokens)));
  // The first token goes to the last place, and the others are NaN.
  std::vector<Bf16> moved(x.size(), __float2bfloat16_rn(NAN));
  std::copy_n(x.begin(), kIn, moved.end() - kIn);
  const auto second = Run(moved, kTokens);
  for (const std::size_t part : {0, 1}) {
    const auto at = [&](const std::vector<float>& y, std::size_t token) {
      const auto begin = y.begin() + (part * kTokens + token) * kOut;
      return std::vector<float>(begin, begin + kOut);
    };
    EXPECT_TRUE(SameBits(at(second, kTokens - 1), at(first, 0))) << part;
  }
}

TEST_F(SplitGemmTest, RefusesWhatItWouldNotFillTheDeviceWith) {
  for (const int tokens : {0, 50, 304, 833, 968, 1632}) {
    EXPECT_FALSE(SplitGemmSupports(tokens, kIn, kOut)) << tokens;
  }
  EXPECT_FALSE(SplitGemmSupports(816, 4096, 1024));
  EXPECT_EQ(LaunchSplitGemm({.tokens = 50, .in = kIn, .out = kOut}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
