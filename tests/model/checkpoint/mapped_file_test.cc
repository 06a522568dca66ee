// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/mapped_file.h"

#include <sys/stat.h>

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"

namespace piserve::checkpoint {
namespace {

TEST(MappedFileTest, BytesStayAfterTheFileIsReplaced) {
  const test::TempFolder folder;
  const std::string path = folder.Write("f", "old");
  const auto file = MapFile(path);
  ASSERT_TRUE(file.ok()) << file.status();
  std::rename(folder.Write("g", "newer").c_str(), path.c_str());
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file->bytes.data()),
                        file->bytes.size()),
            "old");
}

TEST(MappedFileTest, TextIsReadWhole) {
  const test::TempFolder folder;
  EXPECT_EQ(ReadTextFile(folder.Write("f", std::string("a\0b", 3))).value(),
            std::string("a\0b", 3));
}

TEST(MappedFileTest, TextBeyondTheCapIsRefused) {
  const test::TempFolder folder;
  EXPECT_THAT(ReadTextFile(folder.Write("f", std::string((16 << 20) + 1, ' '))),
              test::Refuses({"got 16777217 bytes, want at most 16777216"}));
}

// Without a writer, to open one would wait for ever.
TEST(MappedFileTest, APipeIsRefusedAtOnce) {
  const test::TempFolder folder;
  const std::string path = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THAT(MapFile(path).status(),
              test::Refuses({"got no regular file, want one"}));
}

TEST(MappedFileTest, AMissingFileIsNotFound) {
  EXPECT_TRUE(absl::IsNotFound(MapFile("/no/such/file").status()));
  EXPECT_TRUE(absl::IsNotFound(ReadTextFile("/dev/null/x").status()));
}

}  // namespace
}  // namespace piserve::checkpoint
