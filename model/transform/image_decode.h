// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/observation.h"
#include "model/transform/resize.h"

namespace piserve::transform {

// The size of an image that is worth decoding, judged by headers only
// (image_header.h), also against the width and height that its sender states.
// `field` is its path, e.g. "images[1]"; errors are about that path or one
// below it. Reasons besides image_header.h's: IMAGE_BYTES (RGB8 data of another
// size), IMAGE_SIZE (the header says otherwise), IMAGE_ENCODING.
absl::StatusOr<ImageSize> CheckImage(const ImageView& image,
                                     absl::string_view field);

// uint8 RGB [height, width, 3] of an encoded image that CheckImage gave `size`
// for. Grey and palettes are expanded, alpha is dropped, colour profiles and
// orientation tags are ignored, as Pillow's convert("RGB") does.
//
// INVALID_ARGUMENT (IMAGE_CORRUPT) at the first defect that leaves pixels
// undefined; what libjpeg can skip without harm (stray bytes before a marker,
// as some webcams send) is skipped.
absl::StatusOr<std::vector<std::uint8_t>> DecodeJpeg(std::string_view bytes,
                                                     ImageSize size,
                                                     absl::string_view field);
absl::StatusOr<std::vector<std::uint8_t>> DecodePng(std::string_view bytes,
                                                    ImageSize size,
                                                    absl::string_view field);

}  // namespace piserve::transform
