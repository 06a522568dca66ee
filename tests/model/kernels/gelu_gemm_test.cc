// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/gelu_gemm.h"

#include <algorithm>
#include <tuple>

#include "model/kernels/norm.h"
#include "tests/model/kernels/device.h"
#include "tests/model/kernels/products.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

struct NormedProjection : BiasedProjection {
  NormedProjection(int in, int out)
      : BiasedProjection(in, out), sums(Normal(out, 4)) {}

  const std::vector<float> sums;
};

std::vector<float2> Moments(int tokens) {
  const auto scale = Normal(tokens, 2, 0.3f, 1), shift = Normal(tokens, 3);
  std::vector<float2> moments(tokens);
  for (int t = 0; t < tokens; ++t) moments[t] = {scale[t], shift[t]};
  return moments;
}

Expected Twin(const Bf16* x, float2 moments, const NormedProjection& p, int n) {
  const Expected sum = Dot(x, &p.w[static_cast<std::size_t>(n) * p.in], p.in);
  const double shift = double{moments.y} * p.sums[n], bias = Value(p.bias[n]);
  const double linear = moments.x * sum.value + shift + bias;
  const double error = std::abs(moments.x) * sum.tolerance +
                       0x1p-22 * (std::abs(moments.x * sum.value) +
                                  std::abs(shift) + std::abs(bias));
  const double value = Geglu(linear, 1).value;
  const double all = 1.13 * error + kTanhError * std::abs(linear) / 2;
  return {value, all + kBf16Half * (std::abs(value) + all) + 1e-30};
}

class GeluGemmTest : public KernelTest {
 protected:
  // The outputs and what lies behind them, which was `behind`.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x,
                               const std::vector<float2>& moments,
                               const NormedProjection& p,
                               const std::vector<Bf16>& behind = {}) {
    const int tokens = static_cast<int>(moments.size());
    std::vector<Bf16> before(static_cast<std::size_t>(tokens) * p.out);
    before.insert(before.end(), behind.begin(), behind.end());
    DeviceArray<Bf16> device_x(x), w(p.w), bias(p.bias), y(before);
    DeviceArray<float2> device_moments(moments);
    DeviceArray<float> sums(p.sums);
    EXPECT_EQ(LaunchGeluGemm({.x = device_x.data(),
                              .moments = device_moments.data(),
                              .w = w.data(),
                              .sums = sums.data(),
                              .bias = bias.data(),
                              .y = y.data(),
                              .tokens = tokens,
                              .in = p.in,
                              .out = p.out},
                             nullptr),
              cudaSuccess);
    return y.Get();
  }

  // Every `stride`-th output against its twin, and nothing behind them.
  static void Check(const NormedProjection& p, int tokens, int stride) {
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const auto moments = Moments(tokens);
    const auto behind = NormalBf16(4096, 8);
    const std::vector<Bf16> y = Run(x, moments, p, behind);
    ExpectTail(y, behind, std::to_string(tokens) + " tokens");
    ExpectEvery(stride, y, y.size() - behind.size(),
                std::to_string(tokens) + " tokens to " + std::to_string(p.out) +
                    " outputs",
                [&](long at) {
                  return Twin(&x[at / p.out * p.in], moments[at / p.out], p,
                              static_cast<int>(at % p.out));
                });
  }
};

TEST_F(GeluGemmTest, EqualsItsTwinAtSmallSizes) {
  for (const int out : {8, 72, 256, 520, 1000}) {
    const NormedProjection p(128, out);
    for (const int tokens : {1, 7, 16, 207, 208, 209, 433, 1009}) {
      Check(p, tokens, 1);
    }
  }
}

TEST_F(GeluGemmTest, EqualsItsTwinAtVisionsSizes) {
  const NormedProjection fc1(1152, 4352);
  for (const int tokens : {768, 6144}) Check(fc1, tokens, /*stride=*/8191);
}

// The larger one has each warpgroup go on from tile to tile.
TEST_F(GeluGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kBy = 201;
  for (const auto& [tokens, in, out] :
       {std::tuple(1008, 384, 520), std::tuple(6144, 1152, 4352)}) {
    const NormedProjection p(in, out);
    auto x = NormalBf16(static_cast<std::size_t>(tokens) * in, 9);
    auto moments = Moments(tokens);
    const auto first = Run(x, moments, p);
    std::rotate(x.begin(), x.begin() + kBy * in, x.end());
    std::rotate(moments.begin(), moments.begin() + kBy, moments.end());
    std::fill_n(x.begin(), in, __float2bfloat16_rn(NAN));
    ExpectRotated(Run(x, moments, p), first, kBy, out);
  }
}

TEST_F(GeluGemmTest, SupportsOnlyWhatFillsTheDevice) {
  for (const int tokens : {3072, 3840, 4608, 5376, 6144}) {
    EXPECT_TRUE(GeluGemmSupports(tokens, 1152, 4352)) << tokens;
  }
  for (const int tokens : {0, 768, 2304, 2560}) {
    EXPECT_FALSE(GeluGemmSupports(tokens, 1152, 4352)) << tokens;
  }
  EXPECT_FALSE(GeluGemmSupports(6144, 1152 + 32, 4352));
  EXPECT_FALSE(GeluGemmSupports(6144, 1152, 4300));
  EXPECT_EQ(LaunchGeluGemm({.tokens = 1, .in = 96, .out = 256}, nullptr),
            cudaErrorInvalidValue);
  EXPECT_EQ(LaunchGeluGemm({.tokens = 0, .in = 64, .out = 256}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
