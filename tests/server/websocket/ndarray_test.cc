// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/ndarray.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "tests/server/websocket/packing.h"

namespace piserve::server::websocket {
namespace {

using packing::BytesOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

template <typename T>
NdArray ArrayOf(ElementKind kind, std::vector<std::size_t> shape,
                const std::vector<T>& values, std::string& bytes) {
  bytes = BytesOf(values);
  return {{kind, sizeof(T)}, std::move(shape), bytes};
}

std::vector<int> BytesOfImage(const Pixels& pixels) {
  std::vector<int> out;
  for (const char c : pixels.data) out.push_back(static_cast<unsigned char>(c));
  return out;
}

template <typename T>
std::vector<double> NumbersOf(ElementKind kind, const std::vector<T>& values) {
  std::string bytes;
  const Value value{ArrayOf(kind, {values.size()}, values, bytes)};
  const auto numbers = ToNumbers(value, 16, "state");
  EXPECT_TRUE(numbers.ok()) << numbers.status();
  return numbers.ok() ? numbers->values : std::vector<double>();
}

TEST(NdArrayTest, NumbersOfEveryWidthBecomeFloat64) {
  EXPECT_THAT(NumbersOf<std::int8_t>(ElementKind::kInt, {-128, 127}),
              ElementsAre(-128, 127));
  EXPECT_THAT(NumbersOf<std::int16_t>(ElementKind::kInt, {-300}),
              ElementsAre(-300));
  EXPECT_THAT(NumbersOf<std::int32_t>(ElementKind::kInt, {-70000}),
              ElementsAre(-70000));
  EXPECT_THAT(NumbersOf<std::int64_t>(ElementKind::kInt, {-5000000000}),
              ElementsAre(-5e9));
  EXPECT_THAT(NumbersOf<std::uint8_t>(ElementKind::kUnsigned, {255}),
              ElementsAre(255));
  EXPECT_THAT(NumbersOf<std::uint16_t>(ElementKind::kUnsigned, {65535}),
              ElementsAre(65535));
  EXPECT_THAT(NumbersOf<std::uint32_t>(ElementKind::kUnsigned, {4000000000}),
              ElementsAre(4e9));
  EXPECT_THAT(NumbersOf<std::uint64_t>(ElementKind::kUnsigned, {1ull << 63}),
              ElementsAre(std::ldexp(1.0, 63)));
  EXPECT_THAT(NumbersOf<float>(ElementKind::kFloat, {0.1f}),
              ElementsAre(double{0.1f}));
  EXPECT_THAT(NumbersOf<double>(ElementKind::kFloat, {0.1}), ElementsAre(0.1));
}

// 1, -2, 2^-24 (the smallest), 65504 (the largest), infinity.
TEST(NdArrayTest, HalfsAreReadBitByBit) {
  EXPECT_THAT(
      NumbersOf<std::uint16_t>(ElementKind::kFloat,
                               {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x7C00}),
      ElementsAre(1, -2, std::ldexp(1.0, -24), 65504,
                  std::numeric_limits<double>::infinity()));
  EXPECT_TRUE(std::isnan(
      NumbersOf<std::uint16_t>(ElementKind::kFloat, {0x7C01}).front()));
}

TEST(NdArrayTest, ListsAndNumbersAreNumbersToo) {
  const Value list{
      List{Value{1.5}, Value{std::uint64_t{2}}, Value{std::int64_t{-3}}}};
  const auto numbers = ToNumbers(list, 3, "state");
  ASSERT_TRUE(numbers.ok());
  EXPECT_THAT(numbers->values, ElementsAre(1.5, 2, -3));
  EXPECT_THAT(numbers->shape, ElementsAre(3));
  EXPECT_THAT(ToNumbers(Value{2.5}, 1, "gripper")->shape, IsEmpty());
}

TEST(NdArrayTest, WhatIsNoNumberIsRefused) {
  std::string bytes;
  const NdArray flags =
      ArrayOf<std::uint8_t>(ElementKind::kBool, {1}, {1}, bytes);
  const List nested = {Value{List{Value{1.0}}}};
  for (const Value& value :
       {Value{}, Value{true}, Value{std::string_view("1")}, Value{flags},
        Value{nested}, Value{Map{}}, Value{Bytes{"12345678"}},
        Value{List{Value{true}}}}) {
    const absl::Status status = ToNumbers(value, 16, "state").status();
    EXPECT_EQ(ReasonOf(status), "STATE_TYPE") << status;
    EXPECT_EQ(FieldOf(status), "state");
  }
}

TEST(NdArrayTest, MoreNumbersThanAnyRobotHasAreNotRead) {
  std::string bytes;
  const Value array{ArrayOf<double>(ElementKind::kFloat, {17},
                                    std::vector<double>(17), bytes)};
  EXPECT_EQ(ReasonOf(ToNumbers(array, 16, "s").status()), "STATE_LENGTH");
  const Value list{List(17, Value{1.0})};
  EXPECT_EQ(ReasonOf(ToNumbers(list, 16, "s").status()), "STATE_LENGTH");
}

TEST(NdArrayTest, PackedBytesAreNotCopied) {
  std::string bytes;
  const NdArray image = ArrayOf<std::uint8_t>(ElementKind::kUnsigned, {2, 1, 3},
                                              {1, 2, 3, 4, 5, 6}, bytes);
  const auto pixels = ToPixels(image, Layout::kHwcOrChw, "image");
  ASSERT_TRUE(pixels.ok());
  EXPECT_EQ(pixels->height, 2);
  EXPECT_EQ(pixels->width, 1);
  EXPECT_EQ(pixels->data.data(), bytes.data());
  EXPECT_THAT(pixels->converted, IsEmpty());
}

TEST(NdArrayTest, PlanesAreInterleaved) {
  std::string bytes;
  const NdArray image = ArrayOf<std::uint8_t>(ElementKind::kUnsigned, {3, 1, 2},
                                              {1, 2, 3, 4, 5, 6}, bytes);
  for (const Layout layout : {Layout::kHwcOrChw, Layout::kChw}) {
    const auto pixels = ToPixels(image, layout, "image");
    ASSERT_TRUE(pixels.ok());
    EXPECT_EQ(pixels->height, 1);
    EXPECT_EQ(pixels->width, 2);
    EXPECT_THAT(BytesOfImage(*pixels), ElementsAre(1, 3, 5, 2, 4, 6));
  }
}

// As in openpi: an image of three rows reads as planes.
TEST(NdArrayTest, ThreeRowsReadAsPlanes) {
  std::string bytes;
  std::vector<std::uint8_t> values(3 * 4 * 3);
  const NdArray image =
      ArrayOf(ElementKind::kUnsigned, {3, 4, 3}, values, bytes);
  const auto pixels = ToPixels(image, Layout::kHwcOrChw, "image");
  ASSERT_TRUE(pixels.ok());
  EXPECT_EQ(pixels->height, 4);
  EXPECT_EQ(pixels->width, 3);
}

// The values are numpy's own: (255 * x).astype(np.uint8) for each dtype.
TEST(NdArrayTest, FloatsAreScaledInTheirOwnPrecisionAndCut) {
  std::string bytes;
  const NdArray singles =
      ArrayOf<float>(ElementKind::kFloat, {1, 2, 3},
                     {0, 1, 0.5f, 0.999f, -0.003f, 1.003f}, bytes);
  EXPECT_THAT(BytesOfImage(*ToPixels(singles, Layout::kHwcOrChw, "image")),
              ElementsAre(0, 255, 127, 254, 0, 255));
  const NdArray doubles = ArrayOf<double>(
      ElementKind::kFloat, {3, 1, 1}, {0.7, 1.0 / 3, 254.9999999 / 255}, bytes);
  EXPECT_THAT(BytesOfImage(*ToPixels(doubles, Layout::kChw, "image")),
              ElementsAre(178, 85, 254));
  // Times 255, 0x3B6F (0.92919921875) is 236.9458, which the nearest half makes
  // 237.
  const NdArray halfs = ArrayOf<std::uint16_t>(ElementKind::kFloat, {1, 1, 3},
                                               {0x3B6F, 0x3800, 0x3C00}, bytes);
  EXPECT_THAT(BytesOfImage(*ToPixels(halfs, Layout::kHwcOrChw, "image")),
              ElementsAre(237, 127, 255));
}

TEST(NdArrayTest, FloatsOutOfRangeAreRefused) {
  for (const double x : {256 / 255.0, -1 / 255.0, 1e300, -1e300,
                         std::numeric_limits<double>::infinity(),
                         std::numeric_limits<double>::quiet_NaN()}) {
    std::string bytes;
    const NdArray image =
        ArrayOf<double>(ElementKind::kFloat, {1, 1, 3}, {0, 0, x}, bytes);
    const absl::Status status =
        ToPixels(image, Layout::kHwcOrChw, "cam").status();
    EXPECT_EQ(ReasonOf(status), "IMAGE_RANGE") << x;
    EXPECT_EQ(FieldOf(status), "cam");
  }
}

TEST(NdArrayTest, OtherShapesAndTypesAreNoImages) {
  std::string bytes;
  const auto image = [&](std::vector<std::size_t> shape) {
    std::size_t count = 1;
    for (const std::size_t side : shape) count *= side;
    return ArrayOf(ElementKind::kUnsigned, std::move(shape),
                   std::vector<std::uint8_t>(count), bytes);
  };
  for (const auto& shape : std::vector<std::vector<std::size_t>>{
           {}, {3}, {4, 4}, {4, 4, 4}, {4, 4, 1}, {0, 4, 3}, {1, 3, 4, 4}}) {
    EXPECT_EQ(ReasonOf(ToPixels(image(shape), Layout::kHwcOrChw, "i").status()),
              "IMAGE_SHAPE");
  }
  const absl::Status packed =
      ToPixels(image({4, 5, 3}), Layout::kChw, "i").status();
  EXPECT_EQ(ReasonOf(packed), "IMAGE_SHAPE");
  EXPECT_THAT(std::string(packed.message()),
              HasSubstr("got [4, 5, 3], want [3, h, w]"));
  const NdArray wide = ArrayOf(ElementKind::kInt, {1, 1, 3},
                               std::vector<std::int64_t>(3), bytes);
  const absl::Status type = ToPixels(wide, Layout::kHwcOrChw, "i").status();
  EXPECT_EQ(ReasonOf(type), "IMAGE_TYPE");
  EXPECT_THAT(std::string(type.message()), HasSubstr("int64"));
}

absl::StatusOr<std::string> TextOf(const std::vector<std::uint32_t>& chars,
                                   std::vector<std::size_t> shape = {}) {
  const std::string bytes = BytesOf(chars);
  return ToText({{ElementKind::kText, bytes.size()}, std::move(shape), bytes},
                "prompt");
}

TEST(NdArrayTest, TextBecomesUtf8WithoutItsPadding) {
  EXPECT_EQ(*TextOf({'a', 'b', 0, 0}), "ab");
  EXPECT_EQ(*TextOf({0}), "");
  EXPECT_EQ(*TextOf({'a', 0, 'b', 0}), std::string("a\0b", 3));
  EXPECT_EQ(*TextOf({0xE9, 0x4E2D, 0x1F916}), "é中🤖");
}

TEST(NdArrayTest, TextThatIsNotUnicodeIsRefused) {
  for (const std::uint32_t c : {0xD800u, 0xDFFFu, 0x110000u, ~0u}) {
    EXPECT_EQ(ReasonOf(TextOf({c}).status()), "TEXT_TYPE");
  }
  const std::string two(8, 'x');
  EXPECT_EQ(ReasonOf(ToText({{ElementKind::kText, 4}, {2}, two}, "p").status()),
            "TEXT_TYPE");
  EXPECT_EQ(
      ReasonOf(ToText({{ElementKind::kUnsigned, 8}, {}, two}, "p").status()),
      "TEXT_TYPE");
}

}  // namespace
}  // namespace piserve::server::websocket
