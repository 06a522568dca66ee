// SPDX-License-Identifier: Apache-2.0
#include "model/reference/ops.h"

#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "model/reference/masks.h"
#include "model/reference/rope.h"
#include "tests/support/golden.h"

namespace piserve::reference {
namespace {

std::int64_t Ulps(float a, float b) {
  return std::abs(std::int64_t{std::bit_cast<std::int32_t>(a)} -
                  std::bit_cast<std::int32_t>(b));
}

// Deterministic values in (-scale, scale).
at::Tensor Values(at::IntArrayRef shape, double scale, double seed) {
  const at::Tensor index =
      at::arange(c10::multiply_integers(shape), at::kDouble);
  return at::sin(index.mul(12.9898).add(seed)).mul(scale).view(shape);
}

TEST(TimeEmbeddingTest, EqualsTheVectorsOfTheSpecificationToOneUlp) {
  const int index[] = {0, 1, 2, 100, 255, 511, 512, 513, 767, 1023};
  const struct {
    std::uint32_t time;
    std::uint32_t values[10];
  } rows[] = {{0x3F800000,
               {0, 0xBF48810A, 0x3F5F2A63, 0xBF6FA2E8, 0xBE817A3B, 0x3F800000,
                0x3F800000, 0xBF1F2ABE, 0x3F77ADD4, 0}},
              {0x3F666666,
               {0xB81D1463, 0xBE0774F9, 0xBC2AD8A4, 0x3F7C7619, 0x3F5B02E2,
                0x3F7CD925, 0x3F800000, 0x3F7DC014, 0x3F048D58, 0x3E20305E}},
              {0x3DCCCCC3,
               {0xB8F08737, 0xBF5BC6FD, 0x3F5DDD4A, 0x3E44770E, 0xBF7569D8,
                0x3E203054, 0x3F800000, 0xBF034732, 0x3E91B721, 0x3F7CD925}}};
  for (const auto& row : rows) {
    const at::Tensor embedding =
        TimeEmbedding(std::bit_cast<float>(row.time), 1024, at::kCPU);
    for (int i = 0; i < 10; ++i) {
      const float got = embedding[0][index[i]].item<float>();
      if (row.values[i] == 0) {  // a sine or cosine that is nearly 0
        EXPECT_LT(std::abs(got), 1e-12) << index[i];
      } else {
        EXPECT_LE(Ulps(got, std::bit_cast<float>(row.values[i])), 1)
            << index[i];
      }
    }
  }
}

TEST(RopeTest, InverseFrequenciesAreTorchsBits) {
  const nlohmann::json tables =
      test::GoldenJson("rope.json")["inv_freq_float32_by_head_dim"];
  for (const auto& [head_dim, golden] : tables.items()) {
    const at::Tensor got =
        FrequencyTensor(std::stoi(head_dim), RopeTable::kExact);
    ASSERT_EQ(got.size(0), golden.size());
    for (int i = 0; i < golden.size(); ++i) {
      EXPECT_EQ(std::bit_cast<std::uint32_t>(got[i].item<float>()),
                std::stoul(golden[i].get<std::string>(), nullptr, 16))
          << head_dim << ", entry " << i;
    }
  }
}

TEST(RopeTest, Bf16TableIsRounded) {
  const at::Tensor got = FrequencyTensor(16, RopeTable::kBf16);
  const std::uint32_t want[] = {0x3F80, 0x3EA2, 0x3DCD, 0x3D02,
                                0x3C24, 0x3B4F, 0x3A83, 0x39A6};
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(std::bit_cast<std::uint32_t>(got[i].item<float>()),
              want[i] << 16);
  }
}

TEST(RopeTest, TurnsHalvesNotNeighbours) {
  // One head of four dimensions at position 1: pairs (0, 2) and (1, 3).
  const at::Tensor x = at::arange(1, 5, at::kFloat).view({1, 1, 1, 4});
  const Rotation rotation =
      RotationAt(at::ones({1, 1}, at::kLong),
                 FrequencyTensor(4, RopeTable::kExact), at::kFloat);
  const at::Tensor y = ApplyRope(x, rotation).view({4});
  EXPECT_NEAR(y[0].item<double>(), std::cos(1) - 3 * std::sin(1), 1e-6);
  EXPECT_NEAR(y[2].item<double>(), 3 * std::cos(1) + std::sin(1), 1e-6);
  EXPECT_NEAR(y[1].item<double>(), 2 * std::cos(.01) - 4 * std::sin(.01), 1e-6);
  EXPECT_NEAR(y[3].item<double>(), 4 * std::cos(.01) + 2 * std::sin(.01), 1e-6);
}

TEST(MaskTest, PositionsSkipInvalidTokens) {
  const at::Tensor pad =
      at::tensor({0, 1, 1, 0, 1, 0}, at::kInt).to(at::kBool).unsqueeze(0);
  EXPECT_TRUE(at::equal(
      Positions(pad)[0],
      at::tensor(std::vector<std::int64_t>{-1, 0, 1, 1, 2, 2}, at::kLong)));
}

TEST(MaskTest, StateSeesThePrefixAndItselfActionsSeeAll) {
  const at::Tensor pad =
      at::tensor({1, 0}, at::kInt).to(at::kBool).unsqueeze(0);
  const at::Tensor pi0 = SuffixMask(pad, /*action_horizon=*/2,
                                    /*suffix_len=*/3)[0]
                             .to(at::kInt);
  EXPECT_TRUE(at::equal(pi0, at::tensor({1, 0, 1, 0, 0,  //
                                         1, 0, 1, 1, 1,  //
                                         1, 0, 1, 1, 1},
                                        at::kInt)
                                 .view({3, 5})));
  const at::Tensor pi05 = SuffixMask(pad, 2, 2)[0].to(at::kInt);
  EXPECT_TRUE(at::equal(
      pi05, at::tensor({1, 0, 1, 1, 1, 0, 1, 1}, at::kInt).view({2, 4})));
}

TEST(MaskTest, MaskedScoreIsFiniteAndOpenpis) {
  const at::Tensor mask = AdditiveMask(at::zeros({1, 1, 1}, at::kBool));
  EXPECT_EQ(std::bit_cast<std::uint32_t>(mask.item<float>()), 0xFF333332u);
}

// Both attentions against sums in double. Relative to values of order one, an
// fp32 sum of 40 terms is good to 40 * 2^-24 = 2.4e-6.
TEST(AttentionTest, EqualsDoubleSumsInFp32) {
  const int heads = 4, kv_heads = 2, queries = 5, keys = 40, dim = 6;
  const at::Tensor q = Values({1, heads, queries, dim}, 2, .1).to(at::kFloat);
  const at::Tensor k = Values({1, kv_heads, keys, dim}, 2, .2).to(at::kFloat);
  const at::Tensor v = Values({1, kv_heads, keys, dim}, 1, .3).to(at::kFloat);
  const at::Tensor eager = EagerAttention(q, k, v, {});
  const at::Tensor flash =
      FlashAttention(q, k.repeat_interleave(heads / kv_heads, 1),
                     v.repeat_interleave(heads / kv_heads, 1));
  const auto qa = q.accessor<float, 4>(), ka = k.accessor<float, 4>(),
             va = v.accessor<float, 4>();
  for (int h = 0; h < heads; ++h) {
    for (int i = 0; i < queries; ++i) {
      std::vector<double> weight(keys);
      double total = 0;
      for (int j = 0; j < keys; ++j) {
        double score = 0;
        for (int d = 0; d < dim; ++d)
          score += qa[0][h][i][d] * ka[0][h / 2][j][d];
        total += weight[j] = std::exp(score / std::sqrt(dim));
      }
      for (int d = 0; d < dim; ++d) {
        double want = 0;
        for (int j = 0; j < keys; ++j) want += weight[j] * va[0][h / 2][j][d];
        want /= total;
        EXPECT_NEAR(eager[0][h][i][d].item<double>(), want, 2.4e-6);
        EXPECT_NEAR(flash[0][h][i][d].item<double>(), want, 2.4e-6);
      }
    }
  }
}

TEST(AttentionTest, RowThatSeesNothingIsTheMeanOfAllValues) {
  const at::Tensor q = Values({1, 1, 1, 4}, 1, 0).to(at::kFloat);
  const at::Tensor kv = Values({1, 1, 8, 4}, 1, 1).to(at::kFloat);
  const at::Tensor mask = AdditiveMask(at::zeros({1, 1, 8}, at::kBool));
  const at::Tensor got = EagerAttention(q, kv, kv, mask)[0][0][0];
  EXPECT_LT(got.sub(kv[0][0].mean(0)).abs().max().item<double>(), 1e-6);
}

TEST(NormTest, RmsNormScalesByOnePlusWeightWithOneRounding) {
  const at::Tensor x = Values({3, 64}, 2, 0).to(at::kBFloat16);
  const at::Tensor w = Values({64}, .5, 1).to(at::kFloat);
  const at::Tensor wide = x.to(at::kDouble);
  const at::Tensor want =
      wide.mul(wide.square().mean(-1, true).add(1e-6).rsqrt())
          .mul(w.to(at::kDouble).add(1));
  const at::Tensor got = RmsNorm(x, w);
  ASSERT_EQ(got.scalar_type(), at::kBFloat16);
  // bf16 stores 7 bits: half an ulp is at most 2^-8 of the value; fp32 inside
  // adds far less.
  const at::Tensor error = got.to(at::kDouble).sub(want).abs();
  EXPECT_TRUE(error.le(want.abs().mul(0x1p-8 + 1e-6)).all().item<bool>());
}

TEST(GeluTest, IsTheTanhForm) {
  const double x = 1.7;
  const double tanh_form =
      .5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + .044715 * x * x * x)));
  const double erf_form = .5 * x * (1 + std::erf(x / std::sqrt(2)));
  const double got = GeluTanh(at::tensor({x}, at::kFloat)).item<double>();
  EXPECT_NEAR(got, tanh_form, 1e-6);
  EXPECT_GT(std::abs(got - erf_form), 1e-4);
}

TEST(MatMulTest, Bf16ProductsAreSummedInFp32AndRoundedOnce) {
  // 256 + 1 - 256: a sum in bf16, or one rounded on the way, loses the 1.
  const at::Tensor x =
      at::tensor({256., 1., -256.}, at::kFloat).to(at::kBFloat16).view({1, 3});
  const at::Tensor one = at::ones({1, 3}, at::kBFloat16);
  const at::Tensor bias = at::tensor({0x1p-8}, at::kFloat).to(at::kBFloat16);
  EXPECT_EQ(LinearOf(x, one, bias).item<double>(), 1.0);  // tie to even
  EXPECT_EQ(LinearOf(x, one).item<double>(), 1.0);
  EXPECT_EQ(MatMul(x, one.view({3, 1})).item<double>(), 1.0);
}

}  // namespace
}  // namespace piserve::reference
