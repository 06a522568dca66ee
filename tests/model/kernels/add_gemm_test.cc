// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/add_gemm.h"

#include <algorithm>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/products.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

class AddGemmTest : public KernelTest {
 protected:
  // `y` and what lies behind it, afterwards.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x, const Projection& p,
                               int tokens, const std::vector<Bf16>& y) {
    DeviceArray<Bf16> device_x(x), w(p.w), device_y(y);
    EXPECT_EQ(LaunchAddGemm({.x = device_x.data(),
                             .w = w.data(),
                             .y = device_y.data(),
                             .tokens = tokens,
                             .in = p.in,
                             .out = p.out},
                            nullptr),
              cudaSuccess);
    return device_y.Get();
  }

  // Every `stride`-th output against its twin: all are finite, and what is
  // behind them is as before.
  static void Check(const Projection& p, int tokens, int stride) {
    constexpr int kBehind = 4096;
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const std::size_t size = static_cast<std::size_t>(tokens) * p.out;
    const auto before = NormalBf16(size + kBehind, 8);
    const std::vector<Bf16> y = Run(x, p, tokens, before);
    EXPECT_TRUE(std::all_of(y.begin(), y.end(), [](Bf16 v) {
      return std::isfinite(Value(v));
    })) << tokens;
    ExpectTail(y, {before.begin() + size, before.end()},
               std::to_string(tokens) + " tokens");
    ExpectEvery(
        stride, y, size, std::to_string(tokens) + " tokens", [&](long at) {
          const Expected sum =
              Dot(&x[at / p.out * p.in], &p.w[at % p.out * p.in], p.in);
          const double value = sum.value + Value(before[at]);
          return Expected{
              value, sum.tolerance +
                         kBf16Half * (std::abs(value) + sum.tolerance) + 1e-30};
        });
  }
};

TEST_F(AddGemmTest, EqualsItsTwinAtSmallSizes) {
  for (const int out : {256, 768}) {
    const Projection p(128, out);
    for (const int tokens : {1, 7, 16, 199, 200, 201, 433, 1009}) {
      Check(p, tokens, 1);
    }
  }
}

TEST_F(AddGemmTest, EqualsItsTwinAtPrefillsSizes) {
  const Projection down(16384, 2048), o(2048, 2048);
  for (const int tokens : {1632, 4480, 6528, 7744}) {
    Check(o, tokens, /*stride=*/1021);
    Check(down, tokens, /*stride=*/8191);
  }
}

TEST_F(AddGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 1008, kBy = 201;
  const Projection p(384, 512);
  ExpectPlacesDoNotMatter(p, kTokens, kBy, [&](const auto& x, const auto& y) {
    return Run(x, p, kTokens, y);
  });
}

TEST_F(AddGemmTest, PreparesTheNormBehind) {
  for (const int out : {256, 2048}) {
    const Projection p(64, out);
    // The last makes more pairs of tiles than there are clusters.
    for (const int tokens : {1, 201, 1009, 3401}) {
      const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
      DeviceArray<Bf16> device_x(x), w(p.w);
      DeviceArray<Bf16> y(
          NormalBf16(static_cast<std::size_t>(tokens) * out, 8));
      const std::size_t size =
          static_cast<std::size_t>(out / kAddGemmSquares) * tokens;
      DeviceArray<float> squares(std::vector<float>(size + 512, -1));
      const std::vector<float> gain = Normal(out, 9, 0.3f, 1);
      DeviceArray<float> device_gain(gain);
      DeviceArray<Bf16> gained(y.size());
      ASSERT_EQ(LaunchAddGemm({.x = device_x.data(),
                               .w = w.data(),
                               .y = y.data(),
                               .gain = device_gain.data(),
                               .gained = gained.data(),
                               .squares = squares.data(),
                               .tokens = tokens,
                               .in = p.in,
                               .out = out},
                              nullptr),
                cudaSuccess);
      const auto got = squares.Get();
      const auto sums = y.Get();
      for (std::size_t i = 0; i < size; ++i) {
        const Bf16* part =
            &sums[i % tokens * out + i / tokens * kAddGemmSquares];
        double want = 0;
        for (int n = 0; n < kAddGemmSquares; ++n) {
          want += std::pow(Value(part[n]), 2);
        }
        ASSERT_NEAR(got[i], want, 1e-5 * want) << out << " " << i;
      }
      for (std::size_t i = size; i < got.size(); ++i) ASSERT_EQ(got[i], -1);
      std::vector<Bf16> want(sums.size());
      for (std::size_t i = 0; i < sums.size(); ++i) {
        want[i] = __float2bfloat16_rn(static_cast<float>(Value(sums[i])) *
                                      gain[i % out]);
      }
      EXPECT_TRUE(SameBits(gained.Get(), want)) << out << " " << tokens;
    }
  }
}

TEST_F(AddGemmTest, SupportsOnlyWhatFillsTheDevice) {
  EXPECT_TRUE(AddGemmSupports(6528, 16384, 2048));
  for (const int tokens : {0, 816, 3264, 4480, 7744}) {
    EXPECT_FALSE(AddGemmSupports(tokens, 16384, 2048)) << tokens;
  }
  EXPECT_FALSE(AddGemmSupports(6528, 16384, 1152));
  EXPECT_FALSE(AddGemmSupports(6528, 2048, 2048));
  EXPECT_FALSE(AddGemmSupports(6528, 16384 + 32, 2048));
  EXPECT_EQ(LaunchAddGemm({.tokens = 1, .in = 96, .out = 256}, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(LaunchAddGemm({.tokens = 0, .in = 64, .out = 256}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
