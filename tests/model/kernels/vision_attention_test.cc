// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/vision_attention.h"

#include <algorithm>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

using VisionAttentionTest = KernelTest;

constexpr int kTokens = 256, kHeads = 16, kDim = 72, kInner = kHeads * kDim;
constexpr std::size_t kImageIn = std::size_t{kTokens} * 3 * kInner;
constexpr std::size_t kImageOut = std::size_t{kTokens} * kInner;

std::vector<Bf16> Result(const std::vector<Bf16>& qkv, int heads = kHeads) {
  const std::size_t size = qkv.size() / 3;
  const int images = static_cast<int>(size / (kTokens * heads * kDim));
  DeviceArray<Bf16> in(qkv), out(size);
  EXPECT_EQ(LaunchVisionAttention({.qkv = in.data(),
                                   .out = out.data(),
                                   .images = images,
                                   .tokens = kTokens,
                                   .heads = heads,
                                   .head_dim = kDim},
                                  nullptr),
            cudaSuccess);
  return out.Get();
}

// Tokens' heads in the order of images of one head: [images, tokens, parts,
// heads, head_dim] to [images, heads, tokens, parts, head_dim].
std::vector<Bf16> HeadsApart(const std::vector<Bf16>& x, int parts) {
  const std::size_t lines = static_cast<std::size_t>(kTokens) * parts;
  std::vector<Bf16> apart(x.size());
  for (std::size_t i = 0; i < x.size() / kDim; ++i) {
    const std::size_t image = i / kHeads / lines, line = i / kHeads % lines;
    const std::size_t to = (image * kHeads + i % kHeads) * lines + line;
    std::copy_n(x.begin() + i * kDim, kDim, apart.begin() + to * kDim);
  }
  return apart;
}

// Of every head of an image: queries, keys and values times their heads' sizes.
void ExpectTwin(const std::vector<Bf16>& qkv, int image,
                const std::vector<Bf16>& got) {
  std::vector<Expected> want(kImageOut);
  ParallelFor(kHeads, [&](int head) {
    const auto part = [&](int which) {
      std::vector<double> values;
      for (int t = 0; t < kTokens; ++t) {
        const auto row = Widen(qkv.data() + image * kImageIn +
                                   (t * 3 + which) * kInner + head * kDim,
                               kDim);
        values.insert(values.end(), row.begin(), row.end());
      }
      return values;
    };
    const auto q = part(0), k = part(1), v = part(2);
    for (int t = 0; t < kTokens; ++t) {
      Attend({q.begin() + t * kDim, q.begin() + (t + 1) * kDim}, k, v, kTokens,
             want.data() + t * kInner + head * kDim);
    }
  });
  ExpectWithin(std::vector<Bf16>(got.begin() + image * kImageOut,
                                 got.begin() + (image + 1) * kImageOut),
               want, "image " + std::to_string(image));
}

TEST_F(VisionAttentionTest, EqualsItsTwinAtOneImageAndMore) {
  // On 132 processors a CTA has 1, 2, 3 (the last 2), 7 (6), 11 (2) and 12
  // tasks: with 7 and 11 it begins at any of a head's.
  for (const int images : {1, 3, 5, 13, 21, 24}) {
    const auto qkv = NormalBf16(images * kImageIn, images, 1.5f);
    const auto got = Result(qkv);
    ExpectTwin(qkv, 0, got);
    ExpectTwin(qkv, images - 1, got);
  }
}

TEST_F(VisionAttentionTest, StandsScoresFarFromZero) {
  auto qkv = NormalBf16(kImageIn, 7, 12);
  ExpectTwin(qkv, 0, Result(qkv));
}

TEST_F(VisionAttentionTest, AnImagesBitsDependOnItselfAlone) {
  constexpr int kImages = 24;
  const auto qkv = NormalBf16(kImages * kImageIn, 5);
  const auto before = Result(qkv);
  EXPECT_TRUE(SameBits(before, Result(qkv)));
  // The first image moves to the last place, and its neighbours are NaN.
  std::vector<Bf16> moved(qkv.size(), __float2bfloat16_rn(NAN));
  std::copy_n(qkv.begin(), kImageIn, moved.end() - kImageIn);
  const auto after = Result(moved);
  EXPECT_TRUE(
      SameBits(std::vector<Bf16>(before.begin(), before.begin() + kImageOut),
               std::vector<Bf16>(after.end() - kImageOut, after.end())));
}

TEST_F(VisionAttentionTest, AnImagesBitsAreThoseItHasAlone) {
  for (const int images : {2, 5, 9, 13, 21}) {
    const auto qkv = NormalBf16(images * kImageIn, 11 + images, 2);
    const auto together = Result(qkv);
    for (int i = 0; i < images; ++i) {
      const auto in = qkv.begin() + i * kImageIn;
      const auto out = together.begin() + i * kImageOut;
      EXPECT_TRUE(SameBits(Result({in, in + kImageIn}),
                           std::vector<Bf16>(out, out + kImageOut)))
          << i << " of " << images;
    }
  }
}

// The same tasks, whose places among tokens and heads are others.
TEST_F(VisionAttentionTest, AHeadsBitsAreThoseItHasAlone) {
  const auto qkv = NormalBf16(13 * kImageIn, 3);
  EXPECT_TRUE(
      SameBits(Result(HeadsApart(qkv, 3), 1), HeadsApart(Result(qkv), 1)));
}

TEST_F(VisionAttentionTest, RefusesOtherShapes) {
  EXPECT_FALSE(VisionAttentionSupports(64, 72));
  EXPECT_FALSE(VisionAttentionSupports(256, 64));
  EXPECT_EQ(
      LaunchVisionAttention(
          {.images = 1, .tokens = 64, .heads = 1, .head_dim = 72}, nullptr),
      cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
