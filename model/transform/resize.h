// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

namespace piserve::transform {

struct ImageSize {
  int width = 0;   // px
  int height = 0;  // px

  bool operator==(const ImageSize&) const = default;
};

// The largest size of `from`'s shape inside `canvas`, with openpi's double
// arithmetic and truncation. A side is 0 if the image is too flat to be scaled
// that far; such an image cannot be resized.
ImageSize FitInside(ImageSize from, ImageSize canvas);

// Scales an image to fit `canvas` and centres it on black. Equal to openpi's
// resize_with_pad with Pillow 11, byte for byte; an image of the canvas' size
// is copied.
//
//   from  uint8 [from_size.height, from_size.width, 3]
//   to    uint8 [canvas.height, canvas.width, 3], written whole
//
// FitInside(from_size, canvas) must have no side of 0.
// Source: openpi-client image_tools.py resize_with_pad; Pillow
// src/libImaging/Resample.c (8 bits a channel, triangle filter);
// docs/pi0.md 4.3.
void ResizeWithPad(std::span<const std::uint8_t> from, ImageSize from_size,
                   ImageSize canvas, std::span<std::uint8_t> to);

}  // namespace piserve::transform
