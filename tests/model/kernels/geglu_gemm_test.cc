// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/weight_gemm/geglu_gemm.h"

#include <algorithm>
#include <set>

#include "model/kernels/processors.h"
#include "model/kernels/weight_gemm/pairs/geglu.h"
#include "tests/model/kernels/device.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

// Weights of a projection, gate first, and the same packed.
struct Projection {
  Projection(int in, int out) : in(in), out(out) {
    plain = NormalBf16(static_cast<std::size_t>(2) * out * in, 5,
                       1 / std::sqrt(static_cast<float>(in)));
    packed.resize(plain.size());
    for (int i = 0; i < out; ++i) {
      const int gate = GegluGateRow(i);
      Copy(i, gate);
      Copy(out + i, gate + kGegluUpOffset);
    }
  }
  void Copy(int from, int to) {
    std::copy_n(plain.begin() + static_cast<long>(from) * in, in,
                packed.begin() + static_cast<long>(to) * in);
  }

  const int in, out;
  std::vector<Bf16> plain, packed;
};

Expected Twin(const Bf16* x, const Projection& p, int output) {
  const Expected gate =
      Dot(x, &p.plain[static_cast<long>(output) * p.in], p.in);
  const Expected up =
      Dot(x, &p.plain[(static_cast<long>(p.out) + output) * p.in], p.in);
  Expected want = Geglu(gate.value, up.value);
  const double gelu = up.value == 0 ? 0 : std::abs(want.value / up.value);
  want.tolerance +=
      (1.13 * gate.tolerance + kTanhError * std::abs(gate.value) / 2) *
          (std::abs(up.value) + up.tolerance) +
      gelu * up.tolerance;
  return want;
}

// LaunchGegluGemm takes the tiles that are fastest; this, at sizes where those
// are others, too.
cudaError_t LaunchByPairs(const GegluGemmArgs& args, cudaStream_t stream) {
  int processors = 0;
  if (cudaError_t e = Processors(&processors); e != cudaSuccess) return e;
  return weight_gemm::pairs::LaunchGeglu(args, processors, stream);
}

using Launcher = cudaError_t (*)(const GegluGemmArgs&, cudaStream_t);

class GegluGemmTest : public KernelTest {
 protected:
  // What lies behind y is as before.
  static std::vector<Bf16> Run(const std::vector<Bf16>& x, const Projection& p,
                               int tokens, Launcher launch = LaunchGegluGemm) {
    const std::size_t size = static_cast<std::size_t>(tokens) * p.out;
    const auto behind = NormalBf16(4096, 8);
    std::vector<Bf16> before(size, __float2bfloat16_rn(NAN));
    before.insert(before.end(), behind.begin(), behind.end());
    DeviceArray<Bf16> device_x(x), w(p.packed), device_y(before);
    EXPECT_EQ(launch({.x = device_x.data(),
                      .w = w.data(),
                      .y = device_y.data(),
                      .tokens = tokens,
                      .in = p.in,
                      .out = p.out},
                     nullptr),
              cudaSuccess);
    std::vector<Bf16> y = device_y.Get();
    ExpectTail(y, behind, std::to_string(tokens) + " tokens");
    y.resize(size);
    return y;
  }

  // Every `stride`-th output against its twin.
  static void Check(const Projection& p, int tokens, int stride,
                    Launcher launch = LaunchGegluGemm) {
    const auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 7);
    const std::vector<Bf16> y = Run(x, p, tokens, launch);
    ExpectEvery(
        stride, y, y.size(), std::to_string(tokens) + " tokens",
        [&](long at) { return Twin(&x[at / p.out * p.in], p, at % p.out); });
  }

  // Tokens turned round, the last one NaN and first.
  static void CheckOtherPlaces(const Projection& p, int tokens,
                               Launcher launch = LaunchGegluGemm) {
    auto x = NormalBf16(static_cast<std::size_t>(tokens) * p.in, 9);
    const auto first = Run(x, p, tokens, launch);
    std::reverse(x.begin(), x.end());  // tokens, and elements in each
    for (int t = 0; t < tokens; ++t) {
      std::reverse(x.begin() + t * p.in, x.begin() + (t + 1) * p.in);
    }
    std::fill_n(x.begin(), p.in, __float2bfloat16_rn(NAN));
    const auto second = Run(x, p, tokens, launch);
    for (int t = 1; t < tokens; ++t) {
      ASSERT_TRUE(SameBits(RowOf(second, t, p.out),
                           RowOf(first, tokens - 1 - t, p.out)))
          << t;
    }
  }
};

TEST(GegluGateRowTest, EveryRowHoldsOneGateOrUp) {
  std::set<int> rows;
  for (int output = 0; output < 384; ++output) {
    rows.insert(GegluGateRow(output));
    rows.insert(GegluGateRow(output) + kGegluUpOffset);
  }
  EXPECT_EQ(rows.size(), 768u);
  EXPECT_EQ(*rows.rbegin(), 767);
}

TEST_F(GegluGemmTest, EqualsItsTwinAtSmallSizes) {
  const Projection p(128, 256);
  for (const int tokens : {1, 7, 8, 144, 145, 208, 300, 1000}) {
    Check(p, tokens, 1);
  }
}

TEST_F(GegluGemmTest, EqualsItsTwinAtEveryPrefixOfTheVariants) {
  const Projection p(2048, 16384);
  for (const int tokens :
       {304, 320, 456, 560, 576, 712, 816, 832, 968, 6528, 7744}) {
    Check(p, tokens, /*stride=*/tokens * 4 + 1);
  }
}

TEST_F(GegluGemmTest, EqualsItsTwinAtEverySuffixOfTheVariants) {
  const Projection p(1024, 4096);
  for (const int tokens : {50, 51, 100, 102, 150, 200, 204, 250, 400, 408, 800,
                           1600, 3200, 3264}) {
    Check(p, tokens, /*stride=*/tokens + 1);
  }
}

TEST_F(GegluGemmTest, EqualsItsTwinByPairsOfTilesAtSmallSizes) {
  for (const int in : {64, 128, 320}) {
    for (const int out : {128, 384, 2176}) {
      const Projection p(in, out);
      for (const int tokens : {1, 191, 193, 385, 577}) {
        Check(p, tokens, out == 2176 ? 13 : 1, LaunchByPairs);
      }
    }
  }
}

TEST_F(GegluGemmTest, ATokensBitsDependNeitherOnItsPlaceNorOnOthers) {
  const Projection p(128, 256);
  CheckOtherPlaces(p, /*tokens=*/816);
  CheckOtherPlaces(p, /*tokens=*/816, LaunchByPairs);
}

TEST_F(GegluGemmTest, RefusesSizesItCannotTile) {
  EXPECT_FALSE(GegluGemmSupports(2048, 16384 + 64));
  EXPECT_FALSE(GegluGemmSupports(96, 128));
  EXPECT_EQ(LaunchGegluGemm({.tokens = 1, .in = 96, .out = 128}, nullptr),
            cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
