// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/ndarray.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/error.h"
#include "server/websocket/element.h"
#include "server/websocket/msgpack_codec.h"

namespace piserve::server::websocket {
namespace {

// More than any message holds.
constexpr std::uint64_t kMaxSide = std::uint64_t{1} << 31;

absl::string_view ToAbsl(std::string_view text) {
  return {text.data(), text.size()};
}

bool IsNumber(const DType& dtype) {
  return dtype.kind == ElementKind::kInt ||
         dtype.kind == ElementKind::kUnsigned ||
         dtype.kind == ElementKind::kFloat;
}

std::string NameOf(const DType& dtype) {
  switch (dtype.kind) {
    case ElementKind::kBool:
      return "bool";
    case ElementKind::kInt:
      return absl::StrCat("int", 8 * dtype.size);
    case ElementKind::kUnsigned:
      return absl::StrCat("uint", 8 * dtype.size);
    case ElementKind::kFloat:
      return absl::StrCat("float", 8 * dtype.size);
    case ElementKind::kText:
      break;
  }
  return absl::StrCat("text of ", dtype.size / 4);
}

std::string NameOf(const std::vector<std::size_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::optional<DType> SizedType(char kind, std::size_t size) {
  const bool whole = size == 1 || size == 2 || size == 4 || size == 8;
  switch (kind) {
    case 'b':
      if (size == 1) return DType{ElementKind::kBool, size};
      break;
    case 'i':
      if (whole) return DType{ElementKind::kInt, size};
      break;
    case 'u':
      if (whole) return DType{ElementKind::kUnsigned, size};
      break;
    case 'f':
      if (whole && size > 1) return DType{ElementKind::kFloat, size};
      break;
    case 'U':
      // Four bytes a character.
      if (size > 0 && size < (1 << 20)) {
        return DType{ElementKind::kText, 4 * size};
      }
      break;
    default:
      break;
  }
  return std::nullopt;
}

// "<f4", "|u1", "<U12": numpy's dtype.str.
absl::StatusOr<DType> ParseDType(const Value& value, absl::string_view field) {
  const auto* text = std::get_if<std::string_view>(&value.of);
  if (text == nullptr) {
    return BadArray(field, absl::StrCat("got a dtype that is ", Describe(value),
                                        ", want a str"));
  }
  std::uint32_t size = 0;
  std::optional<DType> dtype;
  if (text->size() > 2 && text->size() < 10 &&
      std::string_view("<|=>").find((*text)[0]) != std::string_view::npos &&
      absl::ascii_isdigit((*text)[2]) &&
      absl::SimpleAtoi(ToAbsl(text->substr(2)), &size)) {
    dtype = SizedType((*text)[1], size);
  }
  const bool swapped =
      dtype.has_value() && (*text)[0] == '>' && dtype->size > 1;
  if (dtype.has_value() && !swapped) return *dtype;
  return BadArray(field,
                  absl::StrCat("got dtype ", ShownKey(*text),
                               ", want little-endian bool, int, uint, float or "
                               "text"));
}

absl::StatusOr<std::vector<std::size_t>> ParseShape(const Value& value,
                                                    absl::string_view field) {
  const List* list = std::get_if<List>(&value.of);
  if (list == nullptr || list->size() > kMaxSides) {
    return BadArray(
        field, absl::StrCat("got a shape that is ", Describe(value),
                            ", want a list of at most ", kMaxSides, " sides"));
  }
  std::vector<std::size_t> shape;
  for (const Value& item : *list) {
    const auto* side = std::get_if<std::uint64_t>(&item.of);
    if (side == nullptr || *side > kMaxSide) {
      return BadArray(field, absl::StrCat("got a side that is ", Describe(item),
                                          ", want an int from 0 to 2^31"));
    }
    shape.push_back(*side);
  }
  return shape;
}

// Bytes that such an array holds; nullopt if beyond any message.
std::optional<std::uint64_t> BytesOf(const DType& dtype,
                                     const std::vector<std::size_t>& shape) {
  std::uint64_t bytes = dtype.size;
  for (const std::size_t side : shape) {
    bytes *= side;  // both at most 2^31
    if (bytes > kMaxSide) return std::nullopt;
  }
  return bytes;
}

absl::Status NotNumbers(const Value& value, absl::string_view field) {
  return InvalidField(
      field, "STATE_TYPE",
      absl::StrCat("got ", Describe(value), ", want real numbers"));
}

absl::Status TooMany(std::size_t got, std::size_t limit,
                     absl::string_view field) {
  return InvalidField(
      field, "STATE_LENGTH",
      absl::StrCat("got ", got, " numbers, want at most ", limit));
}

std::optional<double> ToNumber(const Value& value) {
  if (const auto* v = std::get_if<double>(&value.of)) return *v;
  if (const auto* v = std::get_if<std::int64_t>(&value.of)) return *v;
  if (const auto* v = std::get_if<std::uint64_t>(&value.of)) return *v;
  return std::nullopt;
}

// Where the three channels of a pixel lie: HWC or CHW.
struct Strides {
  std::size_t pixel = 3;
  std::size_t channel = 1;
};

// False if a value does not become 0 to 255.
template <typename T>
bool Convert(std::string_view from, Strides strides,
             std::vector<std::uint8_t>& to) {
  const std::size_t pixels = to.size() / 3;
  for (std::size_t i = 0; i < pixels; ++i) {
    for (std::size_t c = 0; c < 3; ++c) {
      const double x =
          Scaled(Load<T>(from, i * strides.pixel + c * strides.channel));
      if (!(x > -1 && x < 256)) return false;
      to[3 * i + c] = static_cast<std::uint8_t>(static_cast<int>(x));
    }
  }
  return true;
}

bool ConvertAny(const NdArray& image, Strides strides,
                std::vector<std::uint8_t>& to) {
  if (image.dtype.kind == ElementKind::kUnsigned) {
    return Convert<std::uint8_t>(image.data, strides, to);
  }
  switch (image.dtype.size) {
    case 2:
      return Convert<Half>(image.data, strides, to);
    case 4:
      return Convert<float>(image.data, strides, to);
    default:
      return Convert<double>(image.data, strides, to);
  }
}

bool IsImageType(const DType& dtype) {
  return dtype.kind == ElementKind::kFloat ||
         (dtype.kind == ElementKind::kUnsigned && dtype.size == 1);
}

void AppendUtf8(char32_t c, std::string& out) {
  const auto tail = [&](int shift) {
    out.push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F)));
  };
  if (c < 0x80) {
    out.push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    out.push_back(static_cast<char>(0xC0 | (c >> 6)));
    tail(0);
  } else if (c < 0x10000) {
    out.push_back(static_cast<char>(0xE0 | (c >> 12)));
    tail(6);
    tail(0);
  } else {
    out.push_back(static_cast<char>(0xF0 | (c >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace

const Value* Find(const Map& map, std::string_view key) {
  for (const Entry& entry : map) {
    if (entry.kind == KeyKind::kText && entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::string ShownKey(std::string_view key) {
  return absl::CHexEscape(ToAbsl(key.substr(0, kMaxKeyBytes)));
}

std::string Describe(const Value& value) {
  constexpr const char* kNames[] = {"None",    "a bool", "an int", "an int",
                                    "a float", "a str",  "bytes",  "",
                                    "a list",  "a map"};
  const auto* array = std::get_if<NdArray>(&value.of);
  if (array == nullptr) return kNames[value.of.index()];
  return absl::StrCat("an array of ", NameOf(array->dtype), " ",
                      NameOf(array->shape));
}

absl::Status BadArray(absl::string_view field, absl::string_view message) {
  return InvalidField(field, "BAD_ARRAY", message);
}

absl::StatusOr<NdArray> MakeArray(const Value& data, const Value& dtype,
                                  const Value& shape, absl::string_view field) {
  const auto* bytes = std::get_if<Bytes>(&data.of);
  if (bytes == nullptr) {
    return BadArray(field, absl::StrCat("got data that is ", Describe(data),
                                        ", want bytes"));
  }
  const auto type = ParseDType(dtype, field);
  if (!type.ok()) return type.status();
  auto sides = ParseShape(shape, field);
  if (!sides.ok()) return sides.status();
  if (BytesOf(*type, *sides) != bytes->bytes.size()) {
    return BadArray(field,
                    absl::StrCat("got ", bytes->bytes.size(), " bytes for ",
                                 NameOf(*type), " ", NameOf(*sides)));
  }
  return NdArray{*type, *std::move(sides), bytes->bytes};
}

absl::StatusOr<Value> MakeScalar(const Value& data, const Value& dtype,
                                 absl::string_view field) {
  const auto type = ParseDType(dtype, field);
  if (!type.ok()) return type.status();
  const std::optional<double> number = ToNumber(data);
  const bool whole = number.has_value() && !std::get_if<double>(&data.of);
  switch (type->kind) {
    case ElementKind::kFloat:
      if (number.has_value()) return Value{*number};
      break;
    case ElementKind::kInt:
    case ElementKind::kUnsigned:
      if (whole) return data;
      break;
    case ElementKind::kBool:
      if (std::get_if<bool>(&data.of)) return data;
      break;
    case ElementKind::kText:
      if (std::get_if<std::string_view>(&data.of)) return data;
      break;
  }
  return BadArray(field,
                  absl::StrCat("got ", Describe(data), " for ", NameOf(*type)));
}

absl::StatusOr<Numbers> ToNumbers(const Value& value, std::size_t limit,
                                  absl::string_view field) {
  Numbers out;
  if (const auto number = ToNumber(value)) {
    out.values = {*number};
    return out;
  }
  if (const List* list = std::get_if<List>(&value.of)) {
    if (list->size() > limit) return TooMany(list->size(), limit, field);
    for (const Value& item : *list) {
      const auto number = ToNumber(item);
      if (!number.has_value()) return NotNumbers(value, field);
      out.values.push_back(*number);
    }
    out.shape = {list->size()};
    return out;
  }
  const auto* array = std::get_if<NdArray>(&value.of);
  if (array == nullptr || !IsNumber(array->dtype)) {
    return NotNumbers(value, field);
  }
  if (array->elements() > limit) {
    return TooMany(array->elements(), limit, field);
  }
  out.shape = array->shape;
  WithNumberType(array->dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    for (std::size_t i = 0; i < array->elements(); ++i) {
      out.values.push_back(ToDouble(Load<T>(array->data, i)));
    }
  });
  return out;
}

absl::StatusOr<Pixels> ToPixels(const NdArray& image, Layout layout,
                                absl::string_view field) {
  if (!IsImageType(image.dtype)) {
    return InvalidField(field, "IMAGE_TYPE",
                        absl::StrCat("got dtype ", NameOf(image.dtype),
                                     ", want uint8, or float in [0, 1]"));
  }
  const std::vector<std::size_t>& shape = image.shape;
  const bool solid = shape.size() == 3 && !image.data.empty();
  const bool planar = solid && shape[0] == 3;
  const bool packed = solid && layout == Layout::kHwcOrChw && shape[2] == 3;
  if (!planar && !packed) {
    return InvalidField(
        field, "IMAGE_SHAPE",
        absl::StrCat(
            "got ", NameOf(shape), ", want ",
            layout == Layout::kChw ? "[3, h, w]" : "[h, w, 3] or [3, h, w]"));
  }
  Pixels out;
  out.height = static_cast<int>(shape[planar ? 1 : 0]);
  out.width = static_cast<int>(shape[planar ? 2 : 1]);
  if (!planar && image.dtype.kind == ElementKind::kUnsigned) {
    out.data = image.data;
    return out;
  }
  const std::size_t plane = image.elements() / 3;
  out.converted.resize(image.elements());
  if (!ConvertAny(image, planar ? Strides{1, plane} : Strides{},
                  out.converted)) {
    return InvalidField(field, "IMAGE_RANGE",
                        "got a float that is NaN or does not become 0 to 255, "
                        "want [0, 1]");
  }
  out.data = {reinterpret_cast<const char*>(out.converted.data()),
              out.converted.size()};
  return out;
}

absl::StatusOr<std::string> ToText(const NdArray& text,
                                   absl::string_view field) {
  const auto bad = [&] {
    return InvalidField(field, "TEXT_TYPE",
                        absl::StrCat("got ", Describe(Value{text}),
                                     ", want str, or an array of one text in "
                                     "Unicode"));
  };
  if (text.dtype.kind != ElementKind::kText || text.elements() != 1) {
    return bad();
  }
  std::string out;
  std::size_t length = text.dtype.size / 4;
  // numpy pads with zeros and does not count them.
  while (length > 0 && Load<std::uint32_t>(text.data, length - 1) == 0) {
    --length;
  }
  for (std::size_t i = 0; i < length; ++i) {
    const auto c = Load<std::uint32_t>(text.data, i);
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return bad();
    AppendUtf8(c, out);
  }
  return out;
}

}  // namespace piserve::server::websocket
