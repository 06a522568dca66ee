// SPDX-License-Identifier: Apache-2.0
#include "model/transform/image_header.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "model/error.h"

namespace piserve::transform {
namespace {

absl::Status Corrupt(absl::string_view field, absl::string_view message) {
  return InvalidField(field, "IMAGE_CORRUPT", message);
}

absl::Status Unsupported(absl::string_view field, absl::string_view message) {
  return InvalidField(field, "IMAGE_UNSUPPORTED", message);
}

int Byte(std::string_view bytes, std::size_t at) {
  return static_cast<unsigned char>(bytes[at]);
}

int BigEndian16(std::string_view bytes, std::size_t at) {
  return Byte(bytes, at) << 8 | Byte(bytes, at + 1);
}

std::uint32_t BigEndian32(std::string_view bytes, std::size_t at) {
  return static_cast<std::uint32_t>(BigEndian16(bytes, at)) << 16 |
         BigEndian16(bytes, at + 2);
}

namespace jpeg {

constexpr int kRst0 = 0xD0, kRst7 = 0xD7, kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA,
              kTem = 0x01, kDht = 0xC4, kJpg = 0xC8, kDac = 0xCC;

bool StandsAlone(int marker) {
  return marker == kTem || (marker >= kRst0 && marker <= kSoi);
}

// Start of frame: C0 to CF but for three that are no frames.
bool IsFrame(int marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != kDht && marker != kJpg &&
         marker != kDac;
}

// Offset past the next marker at or after `at`, skipping entropy-coded data and
// fill bytes; npos at the end of the bytes.
std::size_t PastNextMarker(std::string_view bytes, std::size_t at) {
  while ((at = bytes.find('\xff', at)) != bytes.npos) {
    while (at < bytes.size() && Byte(bytes, at) == 0xFF) ++at;
    if (at == bytes.size()) break;
    const int code = Byte(bytes, at++);
    if (code != 0 && (code < kRst0 || code > kRst7)) return at;
  }
  return bytes.npos;
}

// Judges a start-of-frame segment, `body` after its length.
absl::StatusOr<ImageSize> Frame(int marker, std::string_view body,
                                absl::string_view field) {
  if (marker > 0xC2) {
    return Unsupported(field,
                       "got an arithmetic, lossless or hierarchical JPEG, want "
                       "a baseline or progressive one");
  }
  if (body.size() < 6) return Corrupt(field, "got a JPEG with a cut frame");
  const int bits = Byte(body, 0);
  const int components = Byte(body, 5);
  if (bits != 8) {
    return Unsupported(
        field, absl::StrCat("got a JPEG of ", bits, " bits a sample, want 8"));
  }
  if (components != 1 && components != 3) {
    return Unsupported(field, absl::StrCat("got a JPEG of ", components,
                                           " components, want grey or YCbCr"));
  }
  const ImageSize size = {.width = BigEndian16(body, 3),
                          .height = BigEndian16(body, 1)};
  if (absl::Status status = CheckImageSize(size, field); !status.ok()) {
    return status;
  }
  return size;
}

}  // namespace jpeg

namespace png {

constexpr std::string_view kSignature("\x89PNG\r\n\x1a\n", 8);
constexpr std::size_t kChunkOverhead = 12;  // length, type, checksum

// Judges the body of an IHDR chunk.
absl::StatusOr<ImageSize> Header(std::string_view body,
                                 absl::string_view field) {
  const std::uint32_t width = BigEndian32(body, 0);
  const std::uint32_t height = BigEndian32(body, 4);
  const int bits = Byte(body, 8);
  // Clamped so that a size past int is refused as one that is too large.
  const ImageSize size = {
      .width = static_cast<int>(std::min(width, kMaxSide + 1u)),
      .height = static_cast<int>(std::min(height, kMaxSide + 1u))};
  if (bits > 8) {
    return Unsupported(
        field, absl::StrCat("got a PNG of ", bits, " bits a channel, want 8"));
  }
  if (absl::Status status = CheckImageSize(size, field); !status.ok()) {
    return status;
  }
  return size;
}

}  // namespace png

}  // namespace

absl::Status CheckImageSize(ImageSize size, absl::string_view field) {
  const int longer = std::max(size.width, size.height);
  const int shorter = std::min(size.width, size.height);
  if (shorter < 1 || longer > kMaxSide) {
    return InvalidField(field, "IMAGE_SIZE",
                        absl::StrCat("got ", size.width, "x", size.height,
                                     " pixels, want sides of 1 to ", kMaxSide));
  }
  if (size.width * size.height > kMaxPixels) {
    return InvalidField(
        field, "IMAGE_SIZE",
        absl::StrCat("got ", size.width, "x", size.height,
                     " pixels, want at most ", kMaxPixels, " in all"));
  }
  if (longer > kMaxSideRatio * shorter) {
    return InvalidField(
        field, "IMAGE_RATIO",
        absl::StrCat("got ", size.width, "x", size.height,
                     " pixels, want a side ratio of at most ", kMaxSideRatio));
  }
  return absl::OkStatus();
}

absl::StatusOr<ImageSize> JpegSize(std::string_view bytes,
                                   absl::string_view field) {
  if (bytes.size() < 2 || BigEndian16(bytes, 0) != 0xFFD8) {
    return Corrupt(field, "got no JPEG");
  }
  std::optional<ImageSize> size;
  int scans = 0;
  for (std::size_t at = 2;;) {
    at = jpeg::PastNextMarker(bytes, at);
    if (at == bytes.npos) return Corrupt(field, "got a JPEG without its end");
    const int marker = Byte(bytes, at - 1);
    if (marker == jpeg::kEoi) break;
    if (jpeg::StandsAlone(marker)) continue;
    const int length = bytes.size() - at < 2 ? 0 : BigEndian16(bytes, at);
    if (length < 2 || length > bytes.size() - at) {
      return Corrupt(field, "got a JPEG with a cut segment");
    }
    if (jpeg::IsFrame(marker)) {
      if (size.has_value()) return Corrupt(field, "got a JPEG of two frames");
      auto frame = jpeg::Frame(marker, bytes.substr(at + 2, length - 2), field);
      if (!frame.ok()) return frame;
      size = *frame;
    } else if (marker == jpeg::kSos && ++scans > kMaxScans) {
      return Unsupported(
          field, absl::StrCat("got a JPEG of more than ", kMaxScans, " scans"));
    }
    at += length;
  }
  if (!size.has_value() || scans == 0) {
    return Corrupt(field, "got a JPEG without pixels");
  }
  return *size;
}

absl::StatusOr<ImageSize> PngSize(std::string_view bytes,
                                  absl::string_view field) {
  if (!bytes.starts_with(png::kSignature)) {
    return Corrupt(field, "got no PNG");
  }
  bytes.remove_prefix(png::kSignature.size());
  std::optional<ImageSize> size;
  for (int chunks = 0; chunks < kMaxPngChunks; ++chunks) {
    if (bytes.size() < png::kChunkOverhead) {
      return Corrupt(field, "got a PNG without its end");
    }
    const std::uint32_t length = BigEndian32(bytes, 0);
    const std::string_view type = bytes.substr(4, 4);
    if (length > bytes.size() - png::kChunkOverhead) {
      return Corrupt(field, "got a PNG with a cut chunk");
    }
    if (!size.has_value()) {
      if (type != "IHDR" || length != 13) {
        return Corrupt(field, "got a PNG without its header");
      }
      auto header = png::Header(bytes.substr(8, length), field);
      if (!header.ok()) return header;
      size = *header;
    } else if (type == "acTL") {
      return Unsupported(field, "got an animated PNG, want a still one");
    } else if (type == "IEND") {
      return *size;
    }
    bytes.remove_prefix(png::kChunkOverhead + length);
  }
  return Unsupported(
      field, absl::StrCat("got a PNG of more than ", kMaxPngChunks, " chunks"));
}

}  // namespace piserve::transform
