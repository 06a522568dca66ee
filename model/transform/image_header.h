// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/transform/resize.h"

namespace piserve::transform {

inline constexpr int kMaxSide = 4096;
inline constexpr int kMaxPixels = 4 << 20;
inline constexpr int kMaxSideRatio = 224;
inline constexpr int kMaxScans = 64;
inline constexpr int kMaxPngChunks = 16384;

// OK if an image of this size is taken. INVALID_ARGUMENT at `field` if a side
// is 0 or over kMaxSide (IMAGE_SIZE), there are more than kMaxPixels
// (IMAGE_SIZE), or it is flatter than kMaxSideRatio (IMAGE_RATIO).
absl::Status CheckImageSize(ImageSize size, absl::string_view field);

// Judge a JPEG or PNG by its markers or chunks, decoding no pixel and
// allocating nothing; one pass over the bytes. INVALID_ARGUMENT at `field`:
// IMAGE_CORRUPT (no such file, or it ends early), IMAGE_UNSUPPORTED (CMYK, more
// than 8 bits, arithmetic or lossless JPEG, more than kMaxScans, animated PNG),
// and CheckImageSize's.
//
// Passing says nothing about the compressed data.
// Sources: ITU-T T.81 annex B; PNG specification, third edition, section 5.
absl::StatusOr<ImageSize> JpegSize(std::string_view bytes,
                                   absl::string_view field);
absl::StatusOr<ImageSize> PngSize(std::string_view bytes,
                                  absl::string_view field);

}  // namespace piserve::transform
