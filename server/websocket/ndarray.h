// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/websocket/value.h"

namespace piserve::server::websocket {

// Arrays as numpy would make and read them. `field` is the path of the value
// at fault; every error is INVALID_ARGUMENT about it.

// A key that a client wrote, safe to show.
std::string ShownKey(std::string_view key);

// "a map", "an array of float64 [2, 3]".
std::string Describe(const Value& value);

// (BAD_ARRAY)
absl::Status BadArray(absl::string_view field, absl::string_view message);

// An ndarray of the parts that describe it: bytes, a dtype such as "<f4" and a
// list of sides. BAD_ARRAY if a part is of another type, the dtype is none of
// bool, int, uint, float (up to 8 bytes) and text, is big-endian, or the bytes
// are not as many as the shape says.
absl::StatusOr<NdArray> MakeArray(const Value& data, const Value& dtype,
                                  const Value& shape, absl::string_view field);

// A numpy scalar: the plain value. BAD_ARRAY if it is not of its dtype.
absl::StatusOr<Value> MakeScalar(const Value& data, const Value& dtype,
                                 absl::string_view field);

// Numbers in float64.
struct Numbers {
  std::vector<double> values;
  std::vector<std::size_t> shape;
};

// np.asarray(value).astype(float64) of a number, an array of numbers or a list
// of numbers, of at most `limit` elements: beyond, STATE_LENGTH. STATE_TYPE for
// anything else.
absl::StatusOr<Numbers> ToNumbers(const Value& value, std::size_t limit,
                                  absl::string_view field);

enum class Layout {
  kHwcOrChw,  // LIBERO, DROID: [h, w, 3], or [3, h, w] where the first is 3
  kChw,       // ALOHA: [3, h, w]
};

// An image of uint8 RGB [height, width, 3].
struct Pixels {
  int height = 0;
  int width = 0;
  // Of `converted`, or of the message where that needs no conversion.
  std::string_view data;
  std::vector<std::uint8_t> converted;
};

// What openpi makes of an image: uint8 as it is, float x as (255 * x) in its
// own precision, truncated. IMAGE_TYPE for any other dtype, IMAGE_SHAPE,
// IMAGE_RANGE where a float does not become 0 to 255.
// Source: openpi policies/{libero,droid}_policy.py _parse_image,
// aloha_policy.py _decode_aloha.
absl::StatusOr<Pixels> ToPixels(const NdArray& image, Layout layout,
                                absl::string_view field);

// The text of an array of one string; TEXT_TYPE for any other array, or text
// that is not Unicode.
absl::StatusOr<std::string> ToText(const NdArray& text,
                                   absl::string_view field);

}  // namespace piserve::server::websocket
