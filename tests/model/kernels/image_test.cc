// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/image.h"

#include "tests/model/kernels/device.h"

namespace piserve::kernels {
namespace {

using ImageTest = KernelTest;

struct Case {
  int cameras, slots, image, patch, pitch;
  std::vector<int> live;  // cameras of each row
  int base;
};

// Pixels are copied: no tolerance.
std::vector<Bf16> Twin(const Case& c, const std::vector<std::uint8_t>& pixels) {
  const int grid = c.image / c.patch, area = c.patch * c.patch;
  std::vector<Bf16> want(c.live.size() * c.slots * grid * grid * c.pitch,
                         __float2bfloat16_rn(0));
  for (std::size_t row = 0; row < c.live.size(); ++row) {
    for (int slot = 0; slot < c.live[row]; ++slot) {
      const std::size_t image = (c.base + row) * c.cameras + slot;
      for (int i = 0; i < grid * grid * 3 * area; ++i) {
        const int patch = i / (3 * area), column = i % (3 * area);
        const int y = patch / grid * c.patch + column % area / c.patch;
        const int x = patch % grid * c.patch + column % c.patch;
        want[((row * c.slots + slot) * grid * grid + patch) * c.pitch +
             column] =
            __float2bfloat16_rn(
                pixels[((image * c.image + y) * c.image + x) * 3 +
                       column / area]);
      }
    }
  }
  return want;
}

void Check(const Case& c) {
  const int rows = static_cast<int>(c.live.size());
  const int patches = c.image / c.patch * (c.image / c.patch);
  std::mt19937 generator(3);
  std::vector<std::uint8_t> pixels(static_cast<std::size_t>(c.base + rows) *
                                   c.cameras * c.image * c.image * 3);
  for (auto& p : pixels) p = static_cast<std::uint8_t>(generator());
  std::vector<int> image_len;
  for (const int live : c.live) image_len.push_back(live * patches);
  DeviceArray<std::uint8_t> pixels_d(pixels);
  DeviceArray<int> base(std::vector<int>{c.base}), image_len_d(image_len);
  DeviceArray<Bf16> out(static_cast<std::size_t>(rows) * c.slots * patches *
                        c.pitch);
  PatchifyArgs args;
  args.pixels = pixels_d.data();
  args.row_base = base.data();
  args.image_len = image_len_d.data();
  args.patches = out.data();
  args.rows = rows;
  args.cameras = c.cameras;
  args.slots = c.slots;
  args.image = c.image;
  args.patch = c.patch;
  args.pitch = c.pitch;
  ASSERT_EQ(LaunchPatchify(args, nullptr), cudaSuccess);
  EXPECT_TRUE(SameBits(out.Get(), Twin(c, pixels)));
}

TEST_F(ImageTest, PatchifyCopiesLiveCamerasAndZerosTheRest) {
  Check({3, 3, 224, 14, 592, {3}, 0});
  Check({3, 3, 224, 14, 640, {3}, 0});
  Check({3, 2, 224, 14, 640, {2, 0, 1}, 1});
  Check({2, 2, 35, 5, 80, {2, 1}, 1});  // strips of no whole 16 bytes
}

TEST_F(ImageTest, PatchifyRefusesWhatItCannotHold) {
  PatchifyArgs args;
  args.rows = args.cameras = args.slots = 1;
  args.image = 224;
  args.patch = 14;
  for (const int pitch : {584, 588}) {
    args.pitch = pitch;
    EXPECT_EQ(LaunchPatchify(args, nullptr), cudaErrorInvalidValue);
  }
}

TEST_F(ImageTest, AddPositionRoundsOneSum) {
  for (const auto& [images, width] :
       std::vector<std::pair<int, int>>{{3, 1152}, {2, 72}}) {
    const int patches = 256;
    const auto conv =
        Normal(static_cast<std::size_t>(images) * patches * width, 1);
    const auto position = Normal(patches * width, 2);
    DeviceArray<float> conv_d(conv), position_d(position);
    DeviceArray<Bf16> out(conv.size());
    ASSERT_EQ(LaunchAddPosition(conv_d.data(), position_d.data(), out.data(),
                                images, patches, width, nullptr),
              cudaSuccess);
    std::vector<Bf16> want(conv.size());
    for (std::size_t i = 0; i < want.size(); ++i) {
      want[i] = __float2bfloat16_rn(conv[i] + position[i % position.size()]);
    }
    EXPECT_TRUE(SameBits(out.Get(), want));
  }
}

}  // namespace
}  // namespace piserve::kernels
