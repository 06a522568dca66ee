// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "server/websocket/ndarray.h"

// The numbers that an array may hold, one by one.
namespace piserve::server::websocket {

// The number at `index` of packed ones.
template <typename T>
T Load(std::string_view data, std::size_t index) {
  T value;
  std::memcpy(&value, data.data() + index * sizeof(T), sizeof(T));
  return value;
}

inline float FromHalf(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const float size =
      exponent == 31 ? (fraction == 0 ? std::numeric_limits<float>::infinity()
                                      : std::numeric_limits<float>::quiet_NaN())
      : exponent == 0
          ? std::ldexp(static_cast<float>(fraction), -24)
          : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return (bits >> 15) != 0 ? -size : size;
}

// To the 11 significant bits of a normal half, ties to even, as numpy rounds a
// product of halves.
inline float RoundToHalf(float x) {
  int exponent = 0;
  const float mantissa = std::frexp(x, &exponent);
  return std::ldexp(std::nearbyint(std::ldexp(mantissa, 11)), exponent - 11);
}

// numpy's float16.
struct Half {
  std::uint16_t bits;
};

// 255 * x in x's own precision.
inline double Scaled(Half x) { return RoundToHalf(255.0f * FromHalf(x.bits)); }
inline double Scaled(float x) { return 255.0f * x; }
inline double Scaled(double x) { return 255.0 * x; }
inline double Scaled(std::uint8_t x) { return x; }

inline double ToDouble(Half x) { return FromHalf(x.bits); }
template <typename T>
double ToDouble(T x) {
  return static_cast<double>(x);
}

template <typename T>
struct Type {
  using type = T;
};

// Calls `use` with the element type of a number's dtype.
template <typename Use>
void WithNumberType(const DType& dtype, Use use) {
  const bool sign = dtype.kind == ElementKind::kInt;
  if (dtype.kind == ElementKind::kFloat) {
    if (dtype.size == 2) return use(Type<Half>());
    if (dtype.size == 4) return use(Type<float>());
    return use(Type<double>());
  }
  switch (dtype.size) {
    case 1:
      return sign ? use(Type<std::int8_t>()) : use(Type<std::uint8_t>());
    case 2:
      return sign ? use(Type<std::int16_t>()) : use(Type<std::uint16_t>());
    case 4:
      return sign ? use(Type<std::int32_t>()) : use(Type<std::uint32_t>());
    default:
      return sign ? use(Type<std::int64_t>()) : use(Type<std::uint64_t>());
  }
}

}  // namespace piserve::server::websocket
