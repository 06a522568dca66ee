// SPDX-License-Identifier: Apache-2.0
// Any bytes as JPEG and as PNG: judged by the header and, where that passes,
// decoded and resized. make_images.py made the kept corpus.
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "model/transform/image_decode.h"

namespace {

using piserve::ImageEncoding;
using piserve::transform::CheckImage;
using piserve::transform::DecodeJpeg;
using piserve::transform::DecodePng;
using piserve::transform::FitInside;
using piserve::transform::ImageSize;
using piserve::transform::ResizeWithPad;

void TryAs(ImageEncoding encoding, std::string_view bytes) {
  const auto size = CheckImage(
      {.name = "camera", .encoding = encoding, .data = bytes}, "images[0]");
  if (!size.ok()) return;
  const auto pixels = encoding == ImageEncoding::kJpeg
                          ? DecodeJpeg(bytes, *size, "images[0]")
                          : DecodePng(bytes, *size, "images[0]");
  if (!pixels.ok()) return;
  if (pixels->size() != std::size_t{3} * size->width * size->height) abort();
  const ImageSize canvas = {.width = 28, .height = 28};
  const ImageSize fit = FitInside(*size, canvas);
  if (fit.width == 0 || fit.height == 0) return;
  std::vector<std::uint8_t> resized(std::size_t{3} * 28 * 28);
  ResizeWithPad(*pixels, *size, canvas, resized);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data,
                                      std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  TryAs(ImageEncoding::kJpeg, bytes);
  TryAs(ImageEncoding::kPng, bytes);
  return 0;
}
