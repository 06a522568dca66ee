// SPDX-License-Identifier: Apache-2.0
// Any bytes as JPEG, as PNG and as raw pixels: judged by the header and, where
// that passes, decoded and resized. make_images.py made the kept corpus.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>
#include <vector>

#include "model/transform/image_decode.h"

namespace {

using piserve::ImageEncoding;
using piserve::ImageView;
using piserve::transform::CheckImage;
using piserve::transform::DecodeJpeg;
using piserve::transform::DecodePng;
using piserve::transform::FitInside;
using piserve::transform::ImageSize;
using piserve::transform::ResizeWithPad;

void Resize(std::span<const std::uint8_t> pixels, ImageSize size) {
  if (pixels.size() != std::size_t{3} * size.width * size.height) abort();
  const ImageSize canvas = {.width = 28, .height = 28};
  const ImageSize fit = FitInside(size, canvas);
  if (fit.width == 0 || fit.height == 0) return;
  std::vector<std::uint8_t> resized(std::size_t{3} * 28 * 28);
  ResizeWithPad(pixels, size, canvas, resized);
}

void TryEncoded(ImageEncoding encoding, std::string_view bytes) {
  ImageView image = {.name = "camera", .encoding = encoding, .data = bytes};
  const auto size = CheckImage(image, "images[0]");
  if (!size.ok()) return;
  image.width = size->width;
  image.height = size->height + 1;
  if (CheckImage(image, "images[0]").ok()) abort();
  const auto pixels = encoding == ImageEncoding::kJpeg
                          ? DecodeJpeg(bytes, *size, "images[0]")
                          : DecodePng(bytes, *size, "images[0]");
  if (pixels.ok()) Resize(*pixels, *size);
}

// The first two bytes are the sides.
void TryRaw(std::span<const std::uint8_t> bytes) {
  if (bytes.size() < 2) return;
  const std::span<const std::uint8_t> pixels = bytes.subspan(2);
  const ImageView image = {
      .name = "camera",
      .width = bytes[0],
      .height = bytes[1],
      .data = {reinterpret_cast<const char*>(pixels.data()), pixels.size()}};
  const auto size = CheckImage(image, "images[0]");
  if (size.ok()) Resize(pixels, *size);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  TryEncoded(ImageEncoding::kJpeg, bytes);
  TryEncoded(ImageEncoding::kPng, bytes);
  TryRaw({data, size});
  return 0;
}
