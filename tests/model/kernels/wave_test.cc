// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/wave.h"

#include "tests/model/kernels/device.h"

namespace piserve::kernels {
namespace {

using WaveTest = KernelTest;

constexpr int kRows = 3, kPadded = 5, kCameras = 3, kImage = 224 * 224 * 3;
constexpr int kImageTokens = 256, kMaxTokens = 48, kDim = 32, kActions = 1600;

template <typename T>
std::vector<T> Random(std::size_t size, unsigned seed) {
  std::mt19937 generator(seed);
  std::vector<T> values(size);
  for (T& v : values) v = static_cast<T>(generator() % 200);
  return values;
}

TEST_F(WaveTest, LoadWaveMovesLiveCamerasToTheFront) {
  const auto pixels = Random<std::uint8_t>(kRows * kCameras * kImage, 1);
  const auto tokens = Random<std::int32_t>(kRows * kMaxTokens, 2);
  const auto state = Normal(kRows * kDim, 3),
             noise = Normal(kRows * kActions, 4);
  const std::vector<std::uint8_t> mask = {1, 1, 1, 0, 1, 1, 0, 1, 0};
  const std::vector<int> count = {48, 7, 12}, live = {3, 2, 1};
  DeviceArray<std::uint8_t> pixels_d(pixels), mask_d(mask);
  DeviceArray<std::uint8_t> to_pixels(kPadded * kCameras * kImage);
  DeviceArray<std::int32_t> tokens_d(tokens), count_d(count);
  DeviceArray<std::int32_t> to_tokens(kPadded * kMaxTokens);
  DeviceArray<float> state_d(state), noise_d(noise);
  DeviceArray<float> to_state(kPadded * kDim), to_x(kPadded * kActions);
  DeviceArray<int> image_len(kPadded), prefix_len(kPadded), base(1), step(1);
  DeviceArray<ExpertCall> call(kExpertMaxRows);
  LoadWaveArgs args;
  args.pixels = pixels_d.data();
  args.camera_mask = mask_d.data();
  args.tokens = tokens_d.data();
  args.token_count = count_d.data();
  args.state = state_d.data();
  args.noise = noise_d.data();
  args.to = {to_pixels.data(), to_tokens.data(), to_state.data(),
             to_x.data(),      image_len.data(), prefix_len.data()};
  args.row_base = base.data();
  args.step = step.data();
  args.call = call.data();
  args.first_step = 15;
  args.steps = 5;
  args.rows = kRows;
  args.padded_rows = kPadded;
  args.cameras = kCameras;
  args.image_bytes = kImage;
  args.image_tokens = kImageTokens;
  args.max_tokens = kMaxTokens;
  args.action_dim = kDim;
  args.action_elements = kActions;
  ASSERT_EQ(LaunchLoadWave(args, nullptr), cudaSuccess);

  const auto got = to_pixels.Get();
  for (int r = 0; r < kRows; ++r) {
    int slot = 0;
    for (int c = 0; c < kCameras; ++c) {
      if (mask[r * kCameras + c] == 0) continue;
      EXPECT_EQ(
          std::memcmp(got.data() + (r * kCameras + slot++) * kImage,
                      pixels.data() + (r * kCameras + c) * kImage, kImage),
          0)
          << "row " << r << " camera " << c;
    }
  }
  auto want_tokens = tokens;
  want_tokens.resize(kPadded * kMaxTokens, 0);
  EXPECT_EQ(to_tokens.Get(), want_tokens);
  const auto got_state = to_state.Get(), got_x = to_x.Get();
  EXPECT_TRUE(std::equal(state.begin(), state.end(), got_state.begin()));
  EXPECT_TRUE(std::equal(noise.begin(), noise.end(), got_x.begin()));
  EXPECT_EQ(image_len.Get(), (std::vector<int>{768, 512, 256, 0, 0}));
  EXPECT_EQ(prefix_len.Get(), (std::vector<int>{816, 519, 268, 1, 1}));
  EXPECT_EQ(base.Get()[0], 0);
  EXPECT_EQ(step.Get()[0], 15);
  const auto got_call = call.Get();
  for (int r = 0; r < kExpertMaxRows; ++r) {
    EXPECT_EQ(got_call[r].prefix, prefix_len.Get()[r]);
    EXPECT_EQ(got_call[r].steps, 5);
    EXPECT_EQ(got_call[r].table_row, 15);
  }
}

TEST_F(WaveTest, MicroWavesFollowOneAnother) {
  DeviceArray<int> image_len(std::vector<int>{10, 11, 12, 13, 14, 15});
  DeviceArray<int> prefix_len(std::vector<int>{20, 21, 22, 23, 24, 25});
  DeviceArray<int> next(std::vector<int>{0});
  WaveInput wave;
  wave.image_len = image_len.data();
  wave.prefix_len = prefix_len.data();
  for (int base = 0; base < 6; base += 2) {
    DeviceArray<int> row_base(1), images(2), prefixes(2), keys(3);
    ASSERT_EQ(LaunchBeginMicroWave(wave, next.data(), 2, 1000,
                                   {row_base.data(), images.data(),
                                    prefixes.data(), keys.data()},
                                   nullptr),
              cudaSuccess);
    EXPECT_EQ(row_base.Get()[0], base);
    EXPECT_EQ(images.Get(), (std::vector<int>{10 + base, 11 + base}));
    EXPECT_EQ(prefixes.Get(), (std::vector<int>{20 + base, 21 + base}));
    EXPECT_EQ(keys.Get(), (std::vector<int>{1000 * base, 1000 * (base + 1),
                                            1000 * (base + 2)}));
    EXPECT_EQ(next.Get()[0], base + 2);
  }
}

TEST_F(WaveTest, AdvanceAddsOne) {
  DeviceArray<int> step(std::vector<int>{4});
  ASSERT_EQ(LaunchAdvance(step.data(), nullptr), cudaSuccess);
  EXPECT_EQ(step.Get()[0], 5);
}

}  // namespace
}  // namespace piserve::kernels
