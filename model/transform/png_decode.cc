// SPDX-License-Identifier: Apache-2.0
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "model/transform/image_decode.h"
#include "model/transform/image_header.h"

namespace piserve::transform {
namespace {

// A chunk that libpng keeps (palette, transparency) never needs more.
constexpr png_alloc_size_t kMaxChunkBytes = 1 << 20;

struct Reader {
  std::string_view rest;
  char message[128] = "";
};

void Fail(png_structp png, png_const_charp message) {
  auto* reader = static_cast<Reader*>(png_get_error_ptr(png));
  std::snprintf(reader->message, sizeof reader->message, "%s", message);
  png_longjmp(png, 1);
}

void Ignore(png_structp, png_const_charp) {}

void Read(png_structp png, png_bytep to, std::size_t count) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (count > reader->rest.size()) png_error(png, "the data ends early");
  std::memcpy(to, reader->rest.data(), count);
  reader->rest.remove_prefix(count);
}

void SetLimits(png_structp png) {
  png_set_user_limits(png, kMaxSide, kMaxSide);
  png_set_chunk_malloc_max(png, kMaxChunkBytes);
  png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
  // Texts, profiles and the like are not even unpacked.
  png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
}

// Any colour type to 8-bit RGB.
void SetTransforms(png_structp png) {
  png_set_expand(png);  // palettes, 1, 2 and 4 bits, transparency to alpha
  png_set_gray_to_rgb(png);
  png_set_strip_alpha(png);
}

// Everything between setjmp and a longjmp: holds nothing that needs a
// destructor. False if libpng failed; reader->message says why.
bool Decode(png_structp png, png_infop info, Reader* reader, ImageSize size,
            png_bytep* rows) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  SetLimits(png);
  png_set_read_fn(png, reader, Read);
  png_read_info(png, info);
  if (png_get_image_width(png, info) != size.width ||
      png_get_image_height(png, info) != size.height) {
    png_error(png, "the header changed");
  }
  SetTransforms(png);
  png_set_interlace_handling(png);
  png_read_update_info(png, info);
  if (png_get_rowbytes(png, info) != std::size_t{3} * size.width) {
    png_error(png, "the rows are no RGB");
  }
  png_read_image(png, rows);
  png_read_end(png, nullptr);
  return true;
}

}  // namespace

absl::StatusOr<std::vector<std::uint8_t>> DecodePng(std::string_view bytes,
                                                    ImageSize size,
                                                    absl::string_view field) {
  const std::size_t row_bytes = std::size_t{3} * size.width;
  std::vector<std::uint8_t> pixels(row_bytes * size.height);
  std::vector<png_bytep> rows(size.height);
  for (int y = 0; y < size.height; ++y) rows[y] = &pixels[y * row_bytes];
  Reader reader = {.rest = bytes};
  png_structp png =
      png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, Fail, Ignore);
  png_infop info = png == nullptr ? nullptr : png_create_info_struct(png);
  const bool decoded =
      info != nullptr && Decode(png, info, &reader, size, rows.data());
  png_destroy_read_struct(&png, &info, nullptr);
  if (!decoded) {
    return InvalidField(
        absl::StrCat(field, ".data"), "IMAGE_CORRUPT",
        absl::StrCat("got a PNG that cannot be decoded: ", reader.message));
  }
  return pixels;
}

}  // namespace piserve::transform
