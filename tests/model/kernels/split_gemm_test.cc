// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/split_gemm.h"

#include <algorithm>
#include <map>
#include <utility>

#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

struct Size {
  int in, out;
};
// The VLM's down projection, the expert's down projection and output.
constexpr Size kVlmDown = {16384, 2048}, kDown = {4096, 1024},
               kOutput = {2048, 1024};

struct Case {
  Size size;
  int tokens, parts;
};

// Prefixes of one row; steps of 2 to 17 rows, with and without a state token.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const int tokens : {560, 576, 788, 816, 832}) {
    cases.push_back({kVlmDown, tokens, 2});
  }
  for (const Size size : {kDown, kOutput}) {
    for (const auto& [tokens, parts] :
         std::vector<std::pair<int, int>>{{100, 4},
                                          {102, 4},
                                          {128, 4},
                                          {153, 4},
                                          {200, 4},
                                          {204, 4},
                                          {256, 4},
                                          {306, 4},
                                          {400, 4},
                                          {408, 4},
                                          {448, 4},
                                          {450, 2},
                                          {512, 2},
                                          {561, 4},
                                          {576, 4},
                                          {612, 2},
                                          {816, 2},
                                          {896, 2}}) {
      cases.push_back({size, tokens, parts});
    }
  }
  return cases;
}

class SplitGemmTest : public KernelTest {
 protected:
  static const std::vector<Bf16>& Weights(Size size) {
    static auto* all = new std::map<int, std::vector<Bf16>>;
    auto& w = (*all)[size.in];
    if (w.empty()) {
      w = NormalBf16(std::size_t{1} * size.in * size.out, 3, 1 / 128.0f);
    }
    return w;
  }

  static std::vector<float> Run(Size size, const std::vector<Bf16>& x,
                                int tokens) {
    DeviceArray<Bf16> device_x(x), w(Weights(size));
    DeviceArray<float> parts(std::size_t{1} *
                             SplitGemmParts(tokens, size.in, size.out) *
                             tokens * size.out);
    EXPECT_EQ(LaunchSplitGemm({.x = device_x.data(),
                               .w = w.data(),
                               .parts = parts.data(),
                               .tokens = tokens,
                               .in = size.in,
                               .out = size.out},
                              nullptr),
              cudaSuccess);
    return parts.Get();
  }
};

TEST_F(SplitGemmTest, EqualsItsTwinAtWhateverTokensItServes) {
  for (const auto& [size, tokens, count] : Cases()) {
    const std::string what =
        std::to_string(tokens) + " x " + std::to_string(size.in);
    ASSERT_EQ(SplitGemmParts(tokens, size.in, size.out), count) << what;
    const auto x = NormalBf16(std::size_t{1} * tokens * size.in, tokens);
    const auto& w = Weights(size);
    const auto parts = Run(size, x, tokens);
    const int in_part = size.in / count;
    const long stride = tokens * 2L + 1;
    const int samples = static_cast<int>(parts.size() / stride);
    std::vector<float> got(samples);
    std::vector<Expected> want(samples);
    ParallelFor(samples, [&](int i) {
      const long at = i * stride, part = at / (long{tokens} * size.out);
      const long token = at / size.out % tokens, output = at % size.out;
      got[i] = parts[at];
      want[i] = Dot(&x[token * size.in + part * in_part],
                    &w[output * size.in + part * in_part], in_part);
    });
    ExpectWithin(got, want, what);
    for (const float value : parts) ASSERT_TRUE(std::isfinite(value)) << what;
  }
}

TEST_F(SplitGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  for (const auto& [size, tokens, count] : Cases()) {
    const auto x = NormalBf16(std::size_t{1} * tokens * size.in, 9);
    const auto first = Run(size, x, tokens);
    EXPECT_TRUE(SameBits(first, Run(size, x, tokens)));
    // The first token goes to the last place, and the others are NaN.
    std::vector<Bf16> moved(x.size(), __float2bfloat16_rn(NAN));
    std::copy_n(x.begin(), size.in, moved.end() - size.in);
    const auto second = Run(size, moved, tokens);
    for (int part = 0; part < count; ++part) {
      const auto at = [&](const std::vector<float>& y, long token) {
        const auto begin = y.begin() + (long{part} * tokens + token) * size.out;
        return std::vector<float>(begin, begin + size.out);
      };
      EXPECT_TRUE(SameBits(at(second, tokens - 1), at(first, 0)))
          << tokens << " x " << size.in << ", part " << part;
    }
  }
}

TEST_F(SplitGemmTest, RefusesWhatItWouldNotFillTheDeviceWith) {
  for (const int tokens : {0, 50, 304, 833, 968, 1632}) {
    EXPECT_EQ(SplitGemmParts(tokens, kVlmDown.in, kVlmDown.out), 0) << tokens;
  }
  for (const int tokens : {0, 50, 51, 64, 897, 1600, 3200}) {
    EXPECT_EQ(SplitGemmParts(tokens, kDown.in, kDown.out), 0) << tokens;
  }
  EXPECT_EQ(SplitGemmParts(400, 1024, 1024), 0);
  EXPECT_EQ(SplitGemmParts(400, 4096, 1000), 0);
  EXPECT_EQ(
      LaunchSplitGemm({.tokens = 50, .in = kVlmDown.in, .out = kVlmDown.out},
                      nullptr),
      cudaErrorInvalidValue);
}

TEST_F(SplitGemmTest, KnowsTheMostThatItsPartsTake) {
  for (const Size size : {kVlmDown, kDown, kOutput, Size{64, 64}}) {
    const long most = SplitGemmFloats(size.in, size.out);
    long met = 0;
    for (int tokens = 1; tokens <= 2000; ++tokens) {
      const long parts = SplitGemmParts(tokens, size.in, size.out);
      met = std::max(met, parts * tokens * size.out);
    }
    EXPECT_EQ(most, met) << size.in;
  }
}

}  // namespace
}  // namespace piserve::kernels
