// SPDX-License-Identifier: Apache-2.0
#include "tests/support/synthetic_inputs.h"

#include <gtest/gtest.h>

#include <bit>

#include "tests/support/golden.h"

namespace piserve::test {
namespace {

TEST(SyntheticInputs, ImagesEqualTheGenerators) {
  const auto golden = GoldenJson("preprocess/image_function.json");
  const struct {
    const char* key;
    int seed, height, width;
  } cases[] = {{"224x224 seed 1", 1, 224, 224},
               {"224x224 seed 2", 2, 224, 224},
               {"1x1 seed 100", 100, 1, 1},
               {"7x300 seed 103", 103, 7, 300}};
  for (const auto& c : cases) {
    const auto image = SyntheticImage(c.seed, c.height, c.width);
    EXPECT_EQ(Fnv1a64Hex(image), golden.at(c.key).at("fnv1a64")) << c.key;
  }
}

TEST(SyntheticInputs, ImagesEqualTheStoredTensor) {
  const GoldenTensors images("images.safetensors");
  for (int seed = 1; seed <= 6; ++seed) {
    EXPECT_EQ(SyntheticImage(seed, 224, 224),
              images.Get<std::uint8_t>("image." + std::to_string(seed)));
  }
}

TEST(SyntheticInputs, NoiseAndStateEqualTheDocumentedVectors) {
  const std::vector<float> noise = SyntheticNoise(11, 3);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(noise[0]), 0xbf115469u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(noise[1]), 0xbfd64320u);
  EXPECT_EQ(std::bit_cast<std::uint32_t>(noise[2]), 0x3e435b51u);
  EXPECT_EQ(SyntheticState(11, 2),
            (std::vector<double>{-0.5967845916748047, 0.18928396701812744}));
}

}  // namespace
}  // namespace piserve::test
