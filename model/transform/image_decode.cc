// SPDX-License-Identifier: Apache-2.0
#include "model/transform/image_decode.h"

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "model/transform/image_header.h"

namespace piserve::transform {
namespace {

absl::StatusOr<ImageSize> CheckRgb8(const ImageView& image,
                                    absl::string_view field) {
  const ImageSize size = {.width = image.width, .height = image.height};
  if (absl::Status status = CheckImageSize(size, field); !status.ok()) {
    return status;
  }
  const std::size_t want = std::size_t{3} * size.width * size.height;
  if (image.data.size() != want) {
    return InvalidField(
        absl::StrCat(field, ".data"), "IMAGE_BYTES",
        absl::StrCat("got ", image.data.size(), " bytes, want ", want, " for ",
                     size.width, "x", size.height, " RGB pixels"));
  }
  return size;
}

// The header decides; a stated side that is not 0 must agree with it.
absl::Status CheckStated(int stated, int header, absl::string_view field,
                         absl::string_view side) {
  if (stated == 0 || stated == header) return absl::OkStatus();
  return InvalidField(absl::StrCat(field, ".", side), "IMAGE_SIZE",
                      absl::StrCat("got ", stated, ", want 0 or ", header,
                                   " as the image's own header says"));
}

absl::StatusOr<ImageSize> CheckEncoded(const ImageView& image,
                                       absl::string_view field) {
  const std::string data_field = absl::StrCat(field, ".data");
  auto size = image.encoding == ImageEncoding::kJpeg
                  ? JpegSize(image.data, data_field)
                  : PngSize(image.data, data_field);
  if (!size.ok()) return size;
  if (absl::Status status =
          CheckStated(image.width, size->width, field, "width");
      !status.ok()) {
    return status;
  }
  if (absl::Status status =
          CheckStated(image.height, size->height, field, "height");
      !status.ok()) {
    return status;
  }
  return size;
}

}  // namespace

absl::StatusOr<ImageSize> CheckImage(const ImageView& image,
                                     absl::string_view field) {
  switch (image.encoding) {
    case ImageEncoding::kRgb8:
      return CheckRgb8(image, field);
    case ImageEncoding::kJpeg:
    case ImageEncoding::kPng:
      return CheckEncoded(image, field);
  }
  return InvalidField(absl::StrCat(field, ".encoding"), "IMAGE_ENCODING",
                      "got no known encoding, want RGB8, JPEG or PNG");
}

}  // namespace piserve::transform
