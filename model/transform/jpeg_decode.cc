// SPDX-License-Identifier: Apache-2.0
#include <csetjmp>
#include <cstdio>

// libjpeg's headers need <cstdio> before them.
#include <jerror.h>
#include <jpeglib.h>

#include "absl/strings/str_cat.h"
#include "model/error.h"
#include "model/transform/image_decode.h"

namespace piserve::transform {
namespace {

// libjpeg calls back with the first member and expects error_exit not to
// return.
struct ErrorHandler {
  jpeg_error_mgr base;
  std::jmp_buf jump;
  char message[JMSG_LENGTH_MAX];
};

[[noreturn]] void Fail(j_common_ptr info) {
  auto* handler = reinterpret_cast<ErrorHandler*>(info->err);
  handler->base.format_message(info, handler->message);
  std::longjmp(handler->jump, 1);
}

// Warnings (a negative level) mean that data is missing or wrong, but for those
// that touch no pixel.
void FailOnWarning(j_common_ptr info, int level) {
  if (level >= 0) return;
  switch (info->err->msg_code) {
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
      return;
    default:
      Fail(info);
  }
}

// Everything between setjmp and a longjmp: holds nothing that needs a
// destructor. False if libjpeg failed; handler->message says why.
bool Decode(std::string_view bytes, ImageSize size, ErrorHandler* handler,
            jpeg_decompress_struct* info, std::uint8_t* to) {
  if (setjmp(handler->jump) != 0) return false;
  jpeg_create_decompress(info);
  jpeg_mem_src(info, reinterpret_cast<const unsigned char*>(bytes.data()),
               bytes.size());
  jpeg_read_header(info, TRUE);
  if (info->image_width != size.width || info->image_height != size.height) {
    std::snprintf(handler->message, sizeof handler->message,
                  "the header and the frame differ in size");
    return false;
  }
  info->out_color_space = JCS_RGB;
  jpeg_start_decompress(info);
  const std::size_t row_bytes = std::size_t{3} * size.width;
  while (info->output_scanline < info->output_height) {
    JSAMPROW row = to + info->output_scanline * row_bytes;
    jpeg_read_scanlines(info, &row, 1);
  }
  jpeg_finish_decompress(info);
  return true;
}

}  // namespace

absl::StatusOr<std::vector<std::uint8_t>> DecodeJpeg(std::string_view bytes,
                                                     ImageSize size,
                                                     absl::string_view field) {
  std::vector<std::uint8_t> pixels(std::size_t{3} * size.width * size.height);
  ErrorHandler handler = {};
  jpeg_decompress_struct info = {};
  info.err = jpeg_std_error(&handler.base);
  handler.base.error_exit = Fail;
  handler.base.emit_message = FailOnWarning;
  const bool decoded = Decode(bytes, size, &handler, &info, pixels.data());
  jpeg_destroy_decompress(&info);
  if (!decoded) {
    return InvalidField(
        absl::StrCat(field, ".data"), "IMAGE_CORRUPT",
        absl::StrCat("got a JPEG that cannot be decoded: ", handler.message));
  }
  return pixels;
}

}  // namespace piserve::transform
