// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/bias_gemm/bias_gemm.h"

#include <algorithm>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

struct Projection {
  Projection(int in, int out)
      : in(in),
        out(out),
        w(NormalBf16(static_cast<std::size_t>(out) * in, 5,
                     1 / std::sqrt(static_cast<float>(in)))),
        bias(NormalBf16(out, 6)) {}

  const int in, out;
  const std::vector<Bf16> w, bias;
};

class BiasGemmTest : public KernelTest {
 protected:
  // `y` afterwards; what lies behind it is as before.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x, const Projection& p,
                               int tokens, const std::vector<Bf16>& y) {
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
  static void Check(const Projection& p, int tokens, int stride) {
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const auto before =
        NormalBf16(static_cast<std::size_t>(tokens) * p.out, 10);
    const std::vector<Bf16> y = Run(x, p, tokens, before);
    const int count = static_cast<int>(y.size()) / stride;
    std::vector<Bf16> got(count);
    std::vector<Expected> want(count);
    ParallelFor(count, [&](int i) {
      const long at = static_cast<long>(i) * stride;
      got[i] = y[at];
      const Expected sum =
          Dot(&x[at / p.out * p.in], &p.w[at % p.out * p.in], p.in);
      const double value =
          sum.value + Value(p.bias[at % p.out]) + Value(before[at]);
      const double error =
          sum.tolerance + 0x1p-22 * (std::abs(value) + std::abs(sum.value) + 8);
      want[i] = {value, error + kBf16Half * (std::abs(value) + error)};
    });
    ExpectWithin(got, want, std::to_string(tokens) + " tokens");
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

TEST_F(BiasGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 1152, kBy = 201;
  const Projection p(448, 576);
  auto x = NormalBf16(kTokens * p.in, 9);
  auto y = NormalBf16(kTokens * p.out, 10);
  const auto first = Run(x, p, kTokens, y);
  std::rotate(x.begin(), x.begin() + kBy * p.in, x.end());
  std::rotate(y.begin(), y.begin() + kBy * p.out, y.end());
  std::fill_n(x.begin(), p.in, __float2bfloat16_rn(NAN));
  ExpectRotated(Run(x, p, kTokens, y), first, kBy, p.out);
}

TEST_F(BiasGemmTest, SupportsOnlyWhatFillsTheDeviceOnce) {
  EXPECT_TRUE(BiasGemmSupports(6144, 4352, 1152));
  EXPECT_TRUE(BiasGemmSupports(6144, 1152, 1152));
  for (const int tokens : {0, 768, 4096, 5376, 6912, 12288}) {
    EXPECT_FALSE(BiasGemmSupports(tokens, 1152, 1152)) << tokens;
  }
  EXPECT_FALSE(BiasGemmSupports(6144, 4304, 1152));
  EXPECT_FALSE(BiasGemmSupports(6144, 128, 1152));
  EXPECT_FALSE(BiasGemmSupports(6144, 1152, 1024));
  for (const BiasGemmArgs& args :
       {BiasGemmArgs{.tokens = 192, .in = 192, .out = 288},
        BiasGemmArgs{.tokens = 0, .in = 192, .out = 288},
        BiasGemmArgs{.tokens = 384, .in = 128, .out = 288},
        BiasGemmArgs{.tokens = 384, .in = 192, .out = 256}}) {
    EXPECT_EQ(LaunchBiasGemm(args, nullptr), cudaErrorInvalidValue);
  }
}

}  // namespace
}  // namespace piserve::kernels
