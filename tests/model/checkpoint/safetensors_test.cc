// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/safetensors.h"

#include <cstring>

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using test::FailsWith;
using test::ParseCopy;
using test::RawFile;
using test::Refuses;
using ::testing::ElementsAre;

// A header of exactly `length` bytes with one object inside; padding is legal.
std::string Padded(std::string header, std::size_t length = 0) {
  if (length == 0) length = (header.size() + 7) / 8 * 8;
  header.resize(length, ' ');
  return header;
}

std::string TwoTensors() {
  return RawFile(
      Padded(R"({"b":{"dtype":"BF16","shape":[2,3],"data_offsets":[8,20]},)"
             R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
             R"("__metadata__":{"x":"y"}})"),
      std::string("\0\0\x80\x3f\0\0\0\x40", 8) + std::string(12, 'z'));
}

std::string OneTensor(const std::string& info, std::size_t data_bytes) {
  return RawFile(Padded("{\"t\":" + info + "}"), std::string(data_bytes, '\0'));
}

TEST(SafetensorsTest, TensorsComeInTheOrderOfTheirData) {
  const auto file = ParseCopy(TwoTensors());
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ(file->tensors().size(), 2);
  EXPECT_EQ(file->tensors()[0].name, "a");
  EXPECT_EQ(file->tensors()[1].name, "b");
}

TEST(SafetensorsTest, ATensorHasItsDtypeShapeAndBytes) {
  const auto file = ParseCopy(TwoTensors());
  ASSERT_TRUE(file.ok()) << file.status();
  const StoredTensor* a = file->Find("a");
  ASSERT_NE(a, nullptr);
  EXPECT_EQ(a->dtype, StoredDType::kF32);
  EXPECT_THAT(a->shape, ElementsAre(2));
  ASSERT_EQ(a->data.size(), 8);
  float values[2];
  std::memcpy(values, a->data.data(), 8);
  EXPECT_EQ(values[0], 1.0f);
  EXPECT_EQ(values[1], 2.0f);
  EXPECT_EQ(file->Find("b")->data[0], std::byte{'z'});
  EXPECT_EQ(file->Find("c"), nullptr);
}

TEST(SafetensorsTest, AFileIsMappedAndOutlivesItsReader) {
  std::span<const std::byte> data;
  std::shared_ptr<const void> owner;
  {
    const test::TempFolder folder;
    auto file = Safetensors::Open(folder.Write("f.safetensors", TwoTensors()));
    ASSERT_TRUE(file.ok()) << file.status();
    data = file->Find("b")->data;
    owner = file->owner();
  }
  EXPECT_EQ(data[11], std::byte{'z'});
}

TEST(SafetensorsTest, EveryDtypeOfTheFormatIsKnown) {
  for (const auto& [name, bytes] :
       std::vector<std::pair<std::string, std::size_t>>{{"BOOL", 1},
                                                        {"U8", 1},
                                                        {"I8", 1},
                                                        {"F8_E5M2", 1},
                                                        {"F8_E4M3", 1},
                                                        {"I16", 2},
                                                        {"U16", 2},
                                                        {"F16", 2},
                                                        {"BF16", 2},
                                                        {"I32", 4},
                                                        {"U32", 4},
                                                        {"F32", 4},
                                                        {"I64", 8},
                                                        {"U64", 8},
                                                        {"F64", 8}}) {
    const auto file = ParseCopy(OneTensor(
        "{\"dtype\":\"" + name + "\",\"shape\":[3],\"data_offsets\":[0," +
            std::to_string(3 * bytes) + "]}",
        3 * bytes));
    ASSERT_TRUE(file.ok()) << name << ": " << file.status();
    EXPECT_EQ(Name(file->tensors()[0].dtype), name);
    EXPECT_EQ(SizeOf(file->tensors()[0].dtype), bytes);
  }
}

TEST(SafetensorsTest, ScalarsAndEmptyTensorsAreTensors) {
  const auto file = ParseCopy(RawFile(
      Padded(R"({"s":{"dtype":"F32","shape":[],"data_offsets":[0,4]},)"
             R"("e":{"dtype":"F32","shape":[0,7],"data_offsets":[4,4]}})"),
      std::string(4, '\0')));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->Find("s")->data.size(), 4);
  EXPECT_EQ(file->Find("e")->data.size(), 0);
}

TEST(SafetensorsTest, EveryGoldenFileIsRead) {
  for (const char* name :
       {"images.safetensors", "tiny_pi0/model.safetensors",
        "tiny_pi05/model.safetensors", "tiny_pi0/float32/model.safetensors",
        "tiny_pi0/cases/a.inputs.safetensors", "full/full_pi0.safetensors"}) {
    const auto file = Safetensors::Open(piserve::test::GoldenPath(name));
    EXPECT_TRUE(file.ok()) << name << ": " << file.status();
  }
}

TEST(SafetensorsTest, AMissingFileIsNotFound) {
  EXPECT_THAT(Safetensors::Open("/no/such/file"),
              FailsWith(absl::StatusCode::kNotFound,
                        std::vector<std::string>{"no such file"}));
}

TEST(SafetensorsTest, AFolderOrAnEmptyFileIsRefused) {
  const test::TempFolder folder;
  EXPECT_THAT(Safetensors::Open(folder.path()), Refuses({"no regular file"}));
  EXPECT_THAT(Safetensors::Open(folder.Write("empty", "")),
              Refuses({"empty file"}));
}

TEST(SafetensorsTest, EveryTruncationIsRefused) {
  const std::string whole = TwoTensors();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(ParseCopy(whole.substr(0, size)), Refuses({})) << size;
  }
}

TEST(SafetensorsTest, ATruncatedTensorIsNamedWithItsRange) {
  const std::string whole = TwoTensors();
  EXPECT_THAT(ParseCopy(whole.substr(0, whole.size() - 1)),
              Refuses({"tensor \"b\"", "bytes 8 to 20", "only 19 bytes"}));
}

TEST(SafetensorsTest, BytesBehindTheLastTensorAreRefused) {
  EXPECT_THAT(ParseCopy(TwoTensors() + "?"),
              Refuses({"got 1 bytes after the last tensor"}));
}

TEST(SafetensorsTest, AHeaderBeyondTheCapIsRefusedBeforeItIsRead) {
  std::string file = TwoTensors();
  file.replace(0, 8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
  EXPECT_THAT(ParseCopy(file), Refuses({"header length", "100000000"}));
}

TEST(SafetensorsTest, AHeaderLongerThanTheFileIsRefused) {
  EXPECT_THAT(ParseCopy(std::string("\x09\0\0\0\0\0\0\0{}", 10)),
              Refuses({"truncated", "9 bytes", "got 2"}));
}

TEST(SafetensorsTest, AHeaderThatIsNoObjectIsRefused) {
  EXPECT_THAT(ParseCopy(RawFile("[]", "")), Refuses({"want a JSON object"}));
  EXPECT_THAT(ParseCopy(RawFile("  {}", "")), Refuses({"want a JSON object"}));
  EXPECT_THAT(ParseCopy(RawFile("{\"a\"", "")), Refuses({"not JSON"}));
  EXPECT_THAT(ParseCopy(RawFile("{\"\xff\":1}", "")), Refuses({"not JSON"}));
}

TEST(SafetensorsTest, ANameGivenTwiceIsRefused) {
  const std::string info = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  EXPECT_THAT(
      ParseCopy(RawFile("{\"t\":" + info + ",\"t\":" + info + "}", "x")),
      Refuses({"\"t\" is given twice"}));
  EXPECT_THAT(ParseCopy(OneTensor(R"({"dtype":"U8","dtype":"I8","shape":[1],)"
                                  R"("data_offsets":[0,1]})",
                                  1)),
              Refuses({"\"dtype\" is given twice"}));
}

TEST(SafetensorsTest, OverlapIsRefusedAndTheLaterTensorNamed) {
  EXPECT_THAT(
      ParseCopy(RawFile(
          Padded(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})"),
          "123456")),
      Refuses({"tensor \"b\"", "overlaps", "starts at byte 2, want 4"}));
  EXPECT_THAT(
      ParseCopy(RawFile(
          Padded(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                 R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})"),
          "1234")),
      Refuses({"tensor \"b\"", "overlaps"}));
}

TEST(SafetensorsTest, AHoleIsRefused) {
  EXPECT_THAT(
      ParseCopy(RawFile(
          Padded(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                 R"("b":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}})"),
          "123")),
      Refuses({"tensor \"b\"", "hole", "starts at byte 2, want 1"}));
  EXPECT_THAT(ParseCopy(OneTensor(
                  R"({"dtype":"U8","shape":[1],"data_offsets":[1,2]})", 2)),
              Refuses({"tensor \"t\"", "hole"}));
}

TEST(SafetensorsTest, AShapeThatIsNotItsBytesIsRefused) {
  EXPECT_THAT(
      ParseCopy(OneTensor(
          R"({"dtype":"BF16","shape":[2,3],"data_offsets":[0,8]})", 8)),
      Refuses({"tensor \"t\"", "got 8 bytes, want 12 for BF16 [2, 3]"}));
}

TEST(SafetensorsTest, AShapeWhoseProductOverflowsIsRefused) {
  // 2^32 * 2^32 wraps to 0, the size of the range.
  EXPECT_THAT(
      ParseCopy(OneTensor(R"({"dtype":"U8","shape":[4294967296,4294967296],)"
                          R"("data_offsets":[0,0]})",
                          0)),
      Refuses({"tensor \"t\"", "more than 2^64"}));
}

TEST(SafetensorsTest, OffsetsThatAreNoRangeAreRefused) {
  for (const char* offsets :
       {"[4,0]", "[0]", "[0,2,4]", "[]", "0", "\"0\"", "[-4,0]", "[0,4.0]",
        "[0,1e3]", "[0,null]", "[0,18446744073709551615]",
        "[18446744073709551612,0]"}) {
    EXPECT_THAT(
        ParseCopy(OneTensor(std::string(R"({"dtype":"F32","shape":[1],)") +
                                R"("data_offsets":)" + offsets + "}",
                            4)),
        Refuses({"tensor \"t\""}))
        << offsets;
  }
}

TEST(SafetensorsTest, AShapeThatIsNoListOfSizesIsRefused) {
  for (const char* shape : {"[-1]", "4", "null", "[\"4\"]", "[1.5]", "{}",
                            "[9223372036854775808]"}) {
    EXPECT_THAT(ParseCopy(OneTensor(std::string(R"({"dtype":"U8","shape":)") +
                                        shape + R"(,"data_offsets":[0,4]})",
                                    4)),
                Refuses({"tensor \"t\"", "shape"}))
        << shape;
  }
}

TEST(SafetensorsTest, AnUnknownDtypeIsRefused) {
  EXPECT_THAT(ParseCopy(OneTensor(
                  R"({"dtype":"F4","shape":[2],"data_offsets":[0,1]})", 1)),
              Refuses({"tensor \"t\"", "dtype: got \"F4\""}));
  EXPECT_THAT(ParseCopy(OneTensor(
                  R"({"dtype":7,"shape":[2],"data_offsets":[0,1]})", 1)),
              Refuses({"tensor \"t\"", "dtype: got 7"}));
}

TEST(SafetensorsTest, AMissingFieldIsRefused) {
  EXPECT_THAT(ParseCopy(OneTensor(R"({"dtype":"U8","shape":[1]})", 1)),
              Refuses({"tensor \"t\"", "data_offsets: missing"}));
  EXPECT_THAT(ParseCopy(OneTensor("[1]", 1)),
              Refuses({"tensor \"t\"", "want an object"}));
}

TEST(SafetensorsTest, DataThatIsNotAlignedToItsDtypeIsRefused) {
  EXPECT_THAT(
      ParseCopy(RawFile(
          Padded(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                 R"("b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})"),
          "123456")),
      Refuses({"tensor \"b\"", "multiple of 4"}));
  const std::string header =
      R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}})";
  EXPECT_THAT(ParseCopy(RawFile(Padded(header, header.size() | 1), "12")),
              Refuses({"tensor \"a\"", "multiple of 2"}));
}

TEST(SafetensorsTest, MetadataMustBeStrings) {
  EXPECT_THAT(ParseCopy(RawFile(R"({"__metadata__":{"a":1}})", "")),
              Refuses({"__metadata__.\"a\"", "want a string"}));
  EXPECT_THAT(ParseCopy(RawFile(R"({"__metadata__":[]})", "")),
              Refuses({"__metadata__"}));
}

TEST(SafetensorsTest, AnUglyNameStaysOnOneLineOfTheMessage) {
  EXPECT_THAT(ParseCopy(RawFile(R"({"a\nb\u0000":1})", "")),
              Refuses({"tensor \"a\\nb\\x00\""}));
  const std::string name(100'000, 'n');
  const auto status = ParseCopy(RawFile("{\"" + name + "\":1}", "")).status();
  EXPECT_LT(status.message().size(), 400);
}

TEST(SafetensorsTest, DeepNestingIsRefused) {
  EXPECT_THAT(ParseCopy(RawFile("{\"a\":" + std::string(100'000, '['), "")),
              Refuses({"nested deeper than 32"}));
}

}  // namespace
}  // namespace piserve::checkpoint
