// SPDX-License-Identifier: Apache-2.0
#include "model/transform/resize.h"

#include <gtest/gtest.h>

#include "tests/support/golden.h"
#include "tests/support/synthetic_inputs.h"

namespace piserve::transform {
namespace {

std::vector<std::uint8_t> Resized(const std::vector<std::uint8_t>& image,
                                  ImageSize size, ImageSize canvas) {
  // Not zero: the canvas must be written whole.
  std::vector<std::uint8_t> to(std::size_t{3} * canvas.width * canvas.height,
                               77);
  ResizeWithPad(image, size, canvas, to);
  return to;
}

TEST(Resize, EveryByteEqualsPillows) {
  const auto golden = test::GoldenJson("preprocess/resize.json");
  int compared = 0;
  for (const auto& c : golden.at("cases")) {
    const ImageSize size = {c.at("w"), c.at("h")};
    const ImageSize canvas = {c.at("out_w"), c.at("out_h")};
    if (c.contains("raises")) {
      const ImageSize fit = FitInside(size, canvas);
      EXPECT_TRUE(fit.width == 0 || fit.height == 0);
      continue;
    }
    const auto image =
        test::SyntheticImage(c.at("seed"), size.height, size.width);
    EXPECT_EQ(test::Fnv1a64Hex(Resized(image, size, canvas)), c.at("fnv1a64"))
        << size.width << "x" << size.height << " to " << canvas.width << "x"
        << canvas.height;
    ++compared;
  }
  EXPECT_EQ(compared, 26);
}

TEST(Resize, SquaresAreCutByOnePixelWhereDoubleArithmeticSaysSo) {
  for (const int side : {9, 116, 225, 232}) {
    EXPECT_EQ(FitInside({side, side}, {224, 224}), (ImageSize{223, 223}))
        << side;
  }
  EXPECT_EQ(FitInside({256, 256}, {224, 224}), (ImageSize{224, 224}));
  EXPECT_EQ(FitInside({640, 480}, {224, 224}), (ImageSize{224, 168}));
}

TEST(Resize, SideRatiosUpTo224CanBeScaled) {
  EXPECT_EQ(FitInside({448, 2}, {224, 224}).height, 1);
  EXPECT_EQ(FitInside({224, 1}, {224, 224}).height, 1);
  EXPECT_EQ(FitInside({225, 1}, {224, 224}).height, 0);
  EXPECT_EQ(FitInside({1, 225}, {224, 224}).width, 0);
}

}  // namespace
}  // namespace piserve::transform
