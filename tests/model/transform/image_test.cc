// SPDX-License-Identifier: Apache-2.0
// Headers and decoders together, on the images that make_images.py wrote and on
// some made here.
#include <gtest/gtest.h>

#include <string>

#include "model/error.h"
#include "model/transform/image_decode.h"
#include "model/transform/image_header.h"
#include "tests/support/golden.h"
#include "tests/support/synthetic_inputs.h"

namespace piserve::transform {
namespace {

using Pixels = std::vector<std::uint8_t>;

nlohmann::json Index() {
  return nlohmann::json::parse(
      test::ReadFile(PISERVE_SOURCE_DIR "/tests/model/transform/images.json"));
}

std::string ReadImage(const std::string& name) {
  return test::ReadFile(PISERVE_SOURCE_DIR "/tests/fuzz/corpus/image_fuzz/" +
                        name);
}

ImageEncoding EncodingOf(const std::string& name) {
  return name.ends_with(".png") ? ImageEncoding::kPng : ImageEncoding::kJpeg;
}

absl::StatusOr<Pixels> Decode(const std::string& name,
                              const std::string& bytes) {
  const ImageEncoding encoding = EncodingOf(name);
  const auto size = CheckImage(
      {.name = "camera", .encoding = encoding, .data = bytes}, "images[1]");
  if (!size.ok()) return size.status();
  return encoding == ImageEncoding::kJpeg
             ? DecodeJpeg(bytes, *size, "images[1]")
             : DecodePng(bytes, *size, "images[1]");
}

TEST(Image, PixelsEqualPillows) {
  const nlohmann::json images = Index().at("good");
  EXPECT_GE(images.size(), 17);
  for (const auto& [name, want] : images.items()) {
    const auto pixels = Decode(name, ReadImage(name));
    ASSERT_TRUE(pixels.ok()) << name << ": " << pixels.status();
    EXPECT_EQ(pixels->size(),
              3 * want.at("width").get<int>() * want.at("height").get<int>());
    EXPECT_EQ(test::Fnv1a64Hex(*pixels), want.at("fnv1a64")) << name;
  }
}

TEST(Image, DamagedAndUnsupportedOnesAreRefused) {
  const nlohmann::json images = Index().at("bad");
  EXPECT_GE(images.size(), 31);
  for (const auto& [name, reason] : images.items()) {
    const auto pixels = Decode(name, ReadImage(name));
    EXPECT_EQ(pixels.status().code(), absl::StatusCode::kInvalidArgument)
        << name;
    EXPECT_EQ(ReasonOf(pixels.status()), reason)
        << name << ": " << pixels.status();
    EXPECT_EQ(FieldOf(pixels.status()), "images[1].data") << name;
  }
}

TEST(Image, EveryTruncationIsRefused) {
  for (const char* name : {"rgb420.jpg", "progressive.jpg", "grey.jpg",
                           "rgba.png", "palette4.png", "interlaced.png"}) {
    const std::string bytes = ReadImage(name);
    for (std::size_t kept = 0; kept < bytes.size(); ++kept) {
      EXPECT_FALSE(Decode(name, bytes.substr(0, kept)).ok())
          << name << " cut to " << kept;
    }
  }
}

TEST(Image, TheWrongEncodingIsRefused) {
  EXPECT_EQ(ReasonOf(Decode("a.png", ReadImage("rgb444.jpg")).status()),
            "IMAGE_CORRUPT");
  EXPECT_EQ(ReasonOf(Decode("a.jpg", ReadImage("rgb.png")).status()),
            "IMAGE_CORRUPT");
}

TEST(Image, StatedSidesMustAgreeWithTheHeader) {
  for (const char* name : {"rgb444.jpg", "rgb.png"}) {
    const std::string bytes = ReadImage(name);
    ImageView image = {
        .name = "camera", .encoding = EncodingOf(name), .data = bytes};
    image.width = 37;
    image.height = 26;
    EXPECT_EQ(CheckImage(image, "images[0]").value(), (ImageSize{37, 26}));
    image.height = 25;
    EXPECT_EQ(FieldOf(CheckImage(image, "images[0]").status()),
              "images[0].height");
    image.height = 0;
    image.width = 38;
    const absl::Status status = CheckImage(image, "images[0]").status();
    EXPECT_EQ(FieldOf(status), "images[0].width");
    EXPECT_EQ(ReasonOf(status), "IMAGE_SIZE");
  }
}

TEST(Image, AFrameThatGrewSinceItsHeaderIsRefused) {
  // The decoders are told what was judged, and trust no file to keep to it.
  EXPECT_EQ(
      ReasonOf(DecodeJpeg(ReadImage("rgb444.jpg"), {37, 25}, "x").status()),
      "IMAGE_CORRUPT");
  EXPECT_EQ(ReasonOf(DecodePng(ReadImage("rgb.png"), {36, 26}, "x").status()),
            "IMAGE_CORRUPT");
}

TEST(Image, Rgb8NeedsExactlyItsBytes) {
  const std::string bytes(std::size_t{3} * 4 * 5, 'a');
  ImageView image = {.name = "camera", .width = 5, .height = 4, .data = bytes};
  EXPECT_EQ(CheckImage(image, "images[0]").value(), (ImageSize{5, 4}));
  image.height = 5;
  const absl::Status status = CheckImage(image, "images[0]").status();
  EXPECT_EQ(ReasonOf(status), "IMAGE_BYTES");
  EXPECT_EQ(FieldOf(status), "images[0].data");
}

TEST(Image, SizesAreBounded) {
  const auto reason = [](int width, int height) {
    return ReasonOf(CheckImageSize({width, height}, "images[0]"));
  };
  EXPECT_EQ(reason(1, 1), std::nullopt);
  EXPECT_EQ(reason(4096, 1024), std::nullopt);
  EXPECT_EQ(reason(224, 1), std::nullopt);
  EXPECT_EQ(reason(0, 5), "IMAGE_SIZE");
  EXPECT_EQ(reason(5, -1), "IMAGE_SIZE");
  EXPECT_EQ(reason(4097, 100), "IMAGE_SIZE");
  EXPECT_EQ(reason(100, 1 << 30), "IMAGE_SIZE");
  EXPECT_EQ(reason(4096, 1025), "IMAGE_SIZE");
  EXPECT_EQ(reason(1, 225), "IMAGE_RATIO");
}

TEST(Image, PngsOfTooManyChunksAreRefused) {
  std::string bytes = ReadImage("rgb.png").substr(0, 33);  // up to IHDR
  for (int i = 0; i <= kMaxPngChunks; ++i) {
    bytes += std::string("\0\0\0\0teSt\0\0\0\0", 12);
  }
  EXPECT_EQ(ReasonOf(PngSize(bytes, "x").status()), "IMAGE_UNSUPPORTED");
}

}  // namespace
}  // namespace piserve::transform
