// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/norm_gemm/norm_gemm.h"

#include <algorithm>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/products.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

// A projection behind a norm, whose affine is in it.
struct NormedProjection : BiasedProjection {
  NormedProjection(int in, int out) : BiasedProjection(in, out), sums(out) {
    for (int n = 0; n < out; ++n) {
      double sum = 0;
      for (int k = 0; k < in; ++k) sum += Value(Row(n)[k]);
      sums[n] = static_cast<float>(sum);
    }
  }
  const Bf16* Row(int n) const { return &w[static_cast<std::size_t>(n) * in]; }

  std::vector<float> sums;
};

// What the kernel adds up, exactly, and what FP32 may make of it: products and
// statistics, good to 2^-18 of their terms (norm_gemm.h), one rounding.
Expected Twin(const Bf16* x, const NormedProjection& p, int n,
              NormGemmActivation activation) {
  double mean = 0, square = 0;
  for (int k = 0; k < p.in; ++k) mean += Value(x[k]) / p.in;
  for (int k = 0; k < p.in; ++k) {
    square += std::pow(Value(x[k]) - mean, 2) / p.in;
  }
  const double inverse = 1 / std::sqrt(square + 1e-6);
  double sum = 0, terms = 0;
  for (int k = 0; k < p.in; ++k) {
    sum += (Value(x[k]) - mean) * Value(p.Row(n)[k]);
    terms +=
        (std::abs(Value(x[k])) + std::abs(mean)) * std::abs(Value(p.Row(n)[k]));
  }
  const double linear = inverse * sum + Value(p.bias[n]);
  const double statistics = 1 + mean * mean / (square + 1e-6);
  double error =
      0x1p-18 * (inverse * terms * (1 + p.in * 0x1p-6) +
                 statistics * std::abs(inverse * sum) + std::abs(linear));
  double value = linear;
  if (activation == NormGemmActivation::kGeluTanh) {
    value = Geglu(linear, 1).value;
    error = 1.13 * error + kTanhError * std::abs(linear) / 2;
  }
  return {value, error + kBf16Half * (std::abs(value) + error) + 1e-30};
}

class NormGemmTest : public KernelTest {
 protected:
  static std::vector<Bf16> Run(
      const std::vector<Bf16>& x, const NormedProjection& p,
      NormGemmActivation activation = NormGemmActivation::kNone) {
    const int tokens = static_cast<int>(x.size()) / p.in;
    DeviceArray<Bf16> device_x(x), w(p.w), bias(p.bias);
    DeviceArray<float> sums(p.sums);
    DeviceArray<Bf16> y(static_cast<std::size_t>(tokens) * p.out);
    EXPECT_EQ(LaunchNormGemm({.x = device_x.data(),
                              .w = w.data(),
                              .sums = sums.data(),
                              .bias = bias.data(),
                              .y = y.data(),
                              .tokens = tokens,
                              .in = p.in,
                              .out = p.out,
                              .activation = activation},
                             nullptr),
              cudaSuccess);
    return y.Get();
  }

  // Every `stride`-th output against its twin, of tokens of many sizes and
  // means.
  static void Check(const NormedProjection& p, int tokens, int stride,
                    NormGemmActivation activation) {
    std::vector<float> x = Normal(static_cast<std::size_t>(tokens) * p.in, 7);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const int token = static_cast<int>(i / p.in);
      x[i] = (x[i] + token % 5 - 2) * std::exp2(token % 13 - 6);
    }
    const std::vector<Bf16> rounded = Round(x);
    const std::vector<Bf16> y = Run(rounded, p, activation);
    ExpectEvery(stride, y, y.size(),
                std::to_string(tokens) + " tokens to " + std::to_string(p.out) +
                    " outputs",
                [&](long at) {
                  return Twin(&rounded[at / p.out * p.in], p, at % p.out,
                              activation);
                });
  }
};

TEST_F(NormGemmTest, EqualsItsTwinAtSmallSizes) {
  for (const int out : {8, 72, 160, 216, 1000}) {
    const NormedProjection p(128, out);
    for (const int tokens : {256, 768}) {
      for (const NormGemmActivation activation :
           {NormGemmActivation::kNone, NormGemmActivation::kGeluTanh}) {
        Check(p, tokens, 1, activation);
      }
    }
  }
}

TEST_F(NormGemmTest, EqualsItsTwinAtVisionsSizes) {
  const NormedProjection qkv(1152, 3456), fc1(1152, 4352);
  for (const int tokens : {256, 512, 768}) {
    Check(qkv, tokens, /*stride=*/tokens / 2 + 1, NormGemmActivation::kNone);
    Check(fc1, tokens, /*stride=*/tokens / 2 + 1,
          NormGemmActivation::kGeluTanh);
  }
}

TEST_F(NormGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  constexpr int kTokens = 768, kBy = 201;
  const NormedProjection p(384, 328);
  auto x = NormalBf16(kTokens * p.in, 9);
  const auto first = Run(x, p);
  std::rotate(x.begin(), x.begin() + kBy * p.in, x.end());
  std::fill_n(x.begin(), p.in, __float2bfloat16_rn(NAN));
  ExpectRotated(Run(x, p), first, kBy, p.out);
}

TEST_F(NormGemmTest, RefusesSizesItCannotTile) {
  EXPECT_FALSE(NormGemmSupports(255, 1152, 3456));
  EXPECT_FALSE(NormGemmSupports(256, 1152 + 64, 3456));
  EXPECT_FALSE(NormGemmSupports(256, 1152, 3452));
  EXPECT_FALSE(NormGemmSupports(1536, 1152, 3456));  // more than a wave
  EXPECT_EQ(LaunchNormGemm({.tokens = 1, .in = 1152, .out = 3456}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
