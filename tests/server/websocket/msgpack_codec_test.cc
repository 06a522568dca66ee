// SPDX-License-Identifier: Apache-2.0
#include "server/websocket/msgpack_codec.h"

#include <cstring>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "model/error.h"
#include "tests/server/websocket/packing.h"

namespace piserve::server::websocket {
namespace {

using packing::Array;
using packing::BigEndian;
using packing::Bin;
using packing::Double;
using packing::Int;
using packing::ListOf;
using packing::MapOf;
using packing::Shape;
using packing::Str;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

// {"k": value}
absl::StatusOr<Map> DecodeOne(const std::string& value, std::string& message) {
  message = MapOf({{Str("k"), value}});
  return DecodeMap(message);
}

template <typename T>
T One(const std::string& value) {
  std::string message;
  const auto map = DecodeOne(value, message);
  EXPECT_TRUE(map.ok()) << map.status();
  const Value* found = Find(*map, "k");
  EXPECT_NE(found, nullptr);
  const T* typed = std::get_if<T>(&found->of);
  EXPECT_NE(typed, nullptr) << found->of.index();
  return typed != nullptr ? *typed : T{};
}

absl::Status Refusal(const std::string& message) {
  return DecodeMap(message).status();
}

absl::Status ArrayRefusal(const std::string& value) {
  std::string message;
  return DecodeOne(value, message).status();
}

void ExpectMalformed(const std::string& message, const char* part) {
  const absl::Status status = Refusal(message);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "MALFORMED_MESSAGE");
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

void ExpectBadArray(const std::string& value, const char* part) {
  const absl::Status status = ArrayRefusal(value);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReasonOf(status), "BAD_ARRAY");
  EXPECT_EQ(FieldOf(status), "k");
  EXPECT_THAT(std::string(status.message()), HasSubstr(part));
}

TEST(MsgpackCodecTest, EveryPlainTypeIsRead) {
  EXPECT_EQ(One<std::monostate>("\xc0"), std::monostate());
  EXPECT_EQ(One<bool>("\xc3"), true);
  EXPECT_EQ(One<bool>("\xc2"), false);
  EXPECT_EQ(One<std::uint64_t>("\x05"), 5u);
  EXPECT_EQ(One<std::uint64_t>(Int(~0ull)), ~0ull);
  EXPECT_EQ(One<std::int64_t>("\xff"), -1);
  EXPECT_EQ(One<std::int64_t>("\xd3" + BigEndian(1ull << 63, 8)),
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(One<std::uint64_t>("\xd3" + BigEndian(9, 8)), 9u);
  EXPECT_EQ(One<double>("\xca\x3f\xc0" + std::string(2, '\0')), 1.5);
  EXPECT_EQ(One<double>(Double(-0.25)), -0.25);
  std::string kept;
  const auto map = DecodeOne(Str("text"), kept);
  EXPECT_EQ(std::get<std::string_view>(Find(*map, "k")->of), "text");
}

TEST(MsgpackCodecTest, AnArrayBorrowsTheMessage) {
  const std::string message =
      MapOf({{Str("a"), Array("<f4", {2, 1}, std::string(8, '\1'))}});
  const auto map = DecodeMap(message);
  ASSERT_TRUE(map.ok()) << map.status();
  const auto& array = std::get<NdArray>(Find(*map, "a")->of);
  EXPECT_EQ(array.dtype.kind, ElementKind::kFloat);
  EXPECT_EQ(array.dtype.size, 4u);
  EXPECT_THAT(array.shape, ElementsAre(2, 1));
  EXPECT_EQ(array.elements(), 2u);
  EXPECT_GE(array.data.data(), message.data());
  EXPECT_LE(array.data.data() + array.data.size(),
            message.data() + message.size());
}

TEST(MsgpackCodecTest, EveryDTypeOfNumpyThatHasAMeaningIsTaken) {
  for (const char* dtype : {"|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2",
                            "<u4", "<u8", "<f2", "<f4", "<f8", "<U3"}) {
    const int size = dtype[1] == 'U' ? 4 * (dtype[2] - '0') : dtype[2] - '0';
    EXPECT_TRUE(
        ArrayRefusal(Array(dtype, {2}, std::string(2 * size, '\0'))).ok())
        << dtype;
  }
}

TEST(MsgpackCodecTest, AnArrayWithoutSidesIsOneElement) {
  EXPECT_THAT(One<NdArray>(Array("<f8", {}, std::string(8, '\0'))).shape,
              IsEmpty());
  EXPECT_TRUE(ArrayRefusal(Array("<f8", {0, 3}, "")).ok());
}

TEST(MsgpackCodecTest, OtherDTypesAreRefused) {
  for (const char* dtype :
       {"<c8", "|V8",  "|O",   "<M8[ns]",    "|S3",  ">f4",
        ">U1", "f4",   "<f3",  "<f16",       "<f1",  "<i0",
        "<b2", "<u9",  "<U0",  "<U99999999", "",     "<",
        "<f",  "<f-4", "<f4x", "?f4",        "<f 4", "[('a','<f4')]"}) {
    ExpectBadArray(Array(dtype, {1}, std::string(8, '\0')), "dtype");
  }
}

TEST(MsgpackCodecTest, AShapeThatLiesIsRefused) {
  const std::string eight(8, '\0');
  ExpectBadArray(Array("|u1", {7}, eight), "got 8 bytes for uint8 [7]");
  ExpectBadArray(Array("|u1", {9}, eight), "bytes");
  ExpectBadArray(Array("<f8", {2}, eight), "bytes");
  ExpectBadArray(Array("<f8", {0}, eight), "bytes");
  ExpectBadArray(Array("<f4", {3}, eight), "bytes");
  ExpectBadArray(Array("|u1", {1, 1, 1, 1, 1, 1, 1, 1, 8}, eight), "8 sides");
  // Products that wrap around 64 bits to 8, and to 0.
  ExpectBadArray(Array("<f8", {1ull << 31, 1ull << 30, 8}, eight), "bytes");
  ExpectBadArray(Array("|u1", {1ull << 31, 1ull << 31, 4}, ""), "bytes");
  ExpectBadArray(Array("|u1", {1ull << 32}, ""), "side");
  ExpectBadArray(Array("|u1", {~0ull}, ""), "side");
}

std::string ArrayOf(const std::string& data, const std::string& dtype,
                    const std::string& shape) {
  return MapOf({{Bin("__ndarray__"), "\xc3"},
                {Bin("data"), data},
                {Bin("dtype"), dtype},
                {Bin("shape"), shape}});
}

TEST(MsgpackCodecTest, PartsOfAnArrayOfAnotherTypeAreRefused) {
  const std::string data = Bin("12345678");
  const std::string dtype = Str("|u1");
  const std::string shape = Shape({8});
  EXPECT_TRUE(ArrayRefusal(ArrayOf(data, dtype, shape)).ok());
  ExpectBadArray(ArrayOf(Str("12345678"), dtype, shape), "got data that is");
  ExpectBadArray(ArrayOf("\xc0", dtype, shape), "None");
  ExpectBadArray(ArrayOf(data, Bin("|u1"), shape), "bytes, want a str");
  ExpectBadArray(ArrayOf(data, ListOf({}), shape), "a list, want a str");
  ExpectBadArray(ArrayOf(data, dtype, Int(8)), "got a shape that is an int");
  ExpectBadArray(ArrayOf(data, dtype, ListOf({"\xff"})), "side");
  ExpectBadArray(ArrayOf(data, dtype, ListOf({Double(8)})), "a float");
  ExpectBadArray(ArrayOf(Array("|u1", {1}, "x"), dtype, shape),
                 "an array of uint8 [1]");
  ExpectBadArray(MapOf({{Bin("__ndarray__"), "\xc3"}, {Bin("data"), data}}),
                 "want the keys");
  ExpectBadArray(MapOf({{Bin("__npgeneric__"), "\xc3"}}), "want the keys");
}

TEST(MsgpackCodecTest, AMarkOfStrIsNoArray) {
  EXPECT_EQ(One<Map>(MapOf({{Str("__ndarray__"), "\xc3"}})).size(), 1u);
}

std::string Scalar(const std::string& dtype, const std::string& data) {
  return MapOf({{Bin("__npgeneric__"), "\xc3"},
                {Bin("data"), data},
                {Bin("dtype"), Str(dtype)}});
}

TEST(MsgpackCodecTest, ANumpyScalarIsItsValue) {
  EXPECT_EQ(One<double>(Scalar("<f4", Double(0.5))), 0.5);
  EXPECT_EQ(One<double>(Scalar("<f4", Int(2))), 2.0);
  EXPECT_EQ(One<std::uint64_t>(Scalar("<i8", Int(7))), 7u);
  EXPECT_EQ(One<std::int64_t>(Scalar("<i4", "\xfe")), -2);
  EXPECT_EQ(One<bool>(Scalar("|b1", "\xc3")), true);
  EXPECT_EQ(ArrayRefusal(Scalar("<U1", Str("x"))), absl::OkStatus());
}

TEST(MsgpackCodecTest, AScalarThatIsNotOfItsDTypeIsRefused) {
  ExpectBadArray(Scalar("<f4", Str("0.5")), "got a str for float32");
  ExpectBadArray(Scalar("<i8", Double(1)), "got a float for int64");
  ExpectBadArray(Scalar("|b1", Int(1)), "got an int for bool");
  ExpectBadArray(Scalar("<U1", Bin("x")), "got bytes for text of 1");
  ExpectBadArray(Scalar("<c8", Double(1)), "dtype");
}

TEST(MsgpackCodecTest, TheFieldIsThePathOfKeys) {
  const std::string bad = Array("|u1", {2}, "x");
  const absl::Status status =
      Refusal(MapOf({{Str("images"), MapOf({{Str("cam_high"), bad}})}}));
  EXPECT_EQ(FieldOf(status), "images/cam_high");
  EXPECT_EQ(FieldOf(ArrayRefusal(ListOf({bad}))), "k");
  EXPECT_EQ(FieldOf(Refusal(bad)), "message");
}

TEST(MsgpackCodecTest, EveryPrefixOfAMessageIsRefused) {
  const std::string message = packing::LiberoMessage();
  for (std::size_t size = 0; size < message.size(); ++size) {
    EXPECT_FALSE(DecodeMap({message.data(), size}).ok()) << size;
  }
  EXPECT_TRUE(DecodeMap(message).ok());
}

TEST(MsgpackCodecTest, WhatIsNoMsgpackIsRefused) {
  ExpectMalformed("", "not msgpack");
  ExpectMalformed("\xc1", "not msgpack");
  ExpectMalformed("{\"prompt\": 1}", "behind the map");
  ExpectMalformed(MapOf({}) + "x", "1 bytes behind the map");
  ExpectMalformed(ListOf({}), "got a list, want a map");
  ExpectMalformed("\x05", "got an int");
  ExpectMalformed(Array("|u1", {1}, "x"), "got an array of uint8 [1]");
}

TEST(MsgpackCodecTest, ExtensionTypesAreRefused) {
  for (const std::string& extension :
       {std::string("\xd4\x01z"), std::string("\xd6\xff") + BigEndian(1, 4),
        std::string("\xc7\x02\x05zz"),
        "\xc9" + BigEndian(1, 4) + std::string("\x07z")}) {
    ExpectMalformed(MapOf({{Str("t"), extension}}), "extension");
  }
  ExpectMalformed("\xc9" + BigEndian(0xffffffff, 4) + "\x01", "not msgpack");
}

TEST(MsgpackCodecTest, KeysAreStrOrBytesAndDiffer) {
  ExpectMalformed(MapOf({{Int(1), Int(1)}}), "neither str nor bytes");
  ExpectMalformed(MapOf({{MapOf({}), Int(1)}}), "neither str nor bytes");
  ExpectMalformed(MapOf({{ListOf({Int(1)}), Int(1)}}), "neither");
  ExpectMalformed(MapOf({{Str("a"), Int(1)}, {Str("a"), Int(2)}}),
                  "the key a twice");
  EXPECT_TRUE(DecodeMap(MapOf({{Str("a"), Int(1)}, {Bin("a"), Int(2)}})).ok());
  ExpectMalformed(MapOf({{Str(std::string(65, 'k')), Int(1)}}), "65 bytes");
  ExpectMalformed(MapOf({{Str("\x01\xff"), "\xc0"}, {Str("\x01\xff"), "\xc0"}}),
                  "\\x01\\xff");
}

TEST(MsgpackCodecTest, NestingIsBounded) {
  std::string value = Int(1);
  for (int i = 1; i < kMaxDepth; ++i) value = ListOf({value});
  std::string message;
  EXPECT_TRUE(DecodeOne(value, message).ok());
  ExpectMalformed(MapOf({{Str("k"), ListOf({value})}}), "levels");
  std::string deep = Str("k");
  for (int i = 0; i < 100000; ++i) deep += "\x91";
  ExpectMalformed("\x81" + deep, "levels");
}

TEST(MsgpackCodecTest, SizesThatAreOnlyClaimedCostNothing) {
  ExpectMalformed("\x81" + Str("k") + "\xdd" + BigEndian(0xffffffff, 4),
                  "4096 values");
  ExpectMalformed("\xdf" + BigEndian(0xffffffff, 4), "4096 values");
  ExpectMalformed("\x81" + Str("k") + "\xc6" + BigEndian(0xffffffff, 4),
                  "end early");
  ExpectMalformed("\x81" + Str("k") + "\xdb" + BigEndian(1 << 30, 4),
                  "end early");
}

TEST(MsgpackCodecTest, ImagesAsListsAreTooManyValues) {
  const std::vector<std::string> pixels(4095, "\x07");
  ExpectMalformed(MapOf({{Str("k"), ListOf(pixels)}}), "send arrays");
}

// What openpi_client.msgpack_numpy.packb writes for the same dict.
TEST(MsgpackCodecTest, AReplyIsWhatThePythonPackerWrites) {
  InferenceReply reply;
  reply.actions = {1, 2, 3, 4, 5, 6};
  reply.horizon = 3;
  reply.dim = 2;
  const std::string encoded =
      EncodeReply(reply, {.policy = absl::Milliseconds(3),
                          .server = absl::Milliseconds(5),
                          .previous_total = absl::Milliseconds(8)});
  const std::vector<double> actions = {1, 2, 3, 4, 5, 6};
  const auto double_of = [](double x) { return packing::Double(x); };
  const std::string array = std::string("\x84\xc4\x0b__ndarray__\xc3\xc4\x04") +
                            "data\xc4\x30" + packing::BytesOf(actions) +
                            "\xc4\x05" + "dtype\xa3<f8\xc4\x05" +
                            "shape\x92\x03\x02";
  EXPECT_EQ(encoded,
            "\x83\xa7"
            "actions" +
                array +
                "\xad"
                "policy_timing\x81\xa8"
                "infer_ms" +
                double_of(3) +
                "\xad"
                "server_timing\x82\xa8"
                "infer_ms" +
                double_of(5) +
                "\xad"
                "prev_total_ms" +
                double_of(8));
}

TEST(MsgpackCodecTest, AReplyReadsBackAsFloat64) {
  InferenceReply reply;
  reply.actions = {0.1f, -2.5f};
  reply.horizon = 1;
  reply.dim = 2;
  const std::string encoded = EncodeReply(reply, {});
  const auto map = DecodeMap(encoded);
  ASSERT_TRUE(map.ok()) << map.status();
  const auto& actions = std::get<NdArray>(Find(*map, "actions")->of);
  EXPECT_THAT(actions.shape, ElementsAre(1, 2));
  double first = 0;
  std::memcpy(&first, actions.data.data(), sizeof first);
  EXPECT_EQ(first, double{0.1f});
  const auto& timing = std::get<Map>(Find(*map, "server_timing")->of);
  EXPECT_NE(Find(timing, "infer_ms"), nullptr);
  EXPECT_EQ(Find(timing, "prev_total_ms"), nullptr);
}

TEST(MsgpackCodecTest, MetadataKeepsItsTypesAndSortsItsKeys) {
  google::protobuf::Struct metadata;
  auto& fields = *metadata.mutable_fields();
  auto& pose = *fields["reset_pose"].mutable_list_value();
  pose.add_values()->set_number_value(-1.5);
  fields["name"].set_string_value("x");
  fields["on"].set_bool_value(true);
  fields["off"].set_bool_value(false);
  fields["none"].set_null_value(google::protobuf::NULL_VALUE);
  fields["more"].mutable_struct_value();
  EXPECT_EQ(EncodeMetadata(metadata),
            "\x86\xa4"
            "more\x80\xa4"
            "name\xa1x\xa4none\xc0\xa3off\xc2\xa2on"
            "\xc3\xaareset_pose\x91" +
                Double(-1.5));
  EXPECT_EQ(EncodeMetadata({}), "\x80");
}

}  // namespace
}  // namespace piserve::server::websocket
