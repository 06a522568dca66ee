// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/safetensors_writer.h"

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"

namespace piserve::checkpoint {
namespace {

std::vector<SafetensorsWriter::Header> TwoHeaders() {
  return {{.name = "wide", .dtype = StoredDType::kF32, .shape = {1}},
          {.name = "a\"b", .dtype = StoredDType::kU8, .shape = {3}}};
}

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span(text));
}

TEST(SafetensorsWriterTest, WhatIsWrittenIsReadAgain) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/f.safetensors";
  auto writer = SafetensorsWriter::Create(path, TwoHeaders(), {{"k", "v"}});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append(Bytes("1234")).ok());
  ASSERT_TRUE(writer->Append(Bytes("xyz")).ok());
  ASSERT_TRUE(writer->Finish().ok());
  const auto file = Safetensors::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string_view text(
      reinterpret_cast<const char*>(file->bytes().data()),
      file->bytes().size());
  EXPECT_THAT(text, ::testing::HasSubstr(R"("__metadata__":{"k":"v"})"));
  EXPECT_EQ(file->Find("wide")->data[0], std::byte{'1'});
  EXPECT_EQ(file->Find("a\"b")->data[2], std::byte{'z'});
}

TEST(SafetensorsWriterTest, AWrongNumberOfBytesOrTensorsIsRefused) {
  const test::TempFolder folder;
  auto writer =
      SafetensorsWriter::Create(folder.path() + "/f", TwoHeaders(), {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  const auto invalid = [](std::vector<std::string> parts) {
    return test::FailsWith(absl::StatusCode::kInvalidArgument, parts);
  };
  EXPECT_THAT(writer->Append(Bytes("123")),
              invalid({"\"wide\": got 3 bytes, want 4"}));
  EXPECT_THAT(writer->Finish(), invalid({"got 1 tensors, want 2"}));
  EXPECT_TRUE(writer->Append(Bytes("xyz")).ok());
  EXPECT_THAT(writer->Append(Bytes("")), invalid({"one tensor more"}));
}

TEST(SafetensorsWriterTest, AFolderThatIsNotThereIsRefused) {
  EXPECT_THAT(SafetensorsWriter::Create("/no/such/folder/f", {}, {}),
              test::Refuses({"cannot write"}));
}

TEST(SafetensorsWriterTest, AFullDiskIsNoticed) {
  auto writer = SafetensorsWriter::Create(
      "/dev/full", {{.name = "t", .dtype = StoredDType::kU8, .shape = {3}}},
      {});
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE(writer->Append(Bytes("xyz")).ok());
  EXPECT_TRUE(absl::IsUnavailable(writer->Finish()));
}

}  // namespace
}  // namespace piserve::checkpoint
