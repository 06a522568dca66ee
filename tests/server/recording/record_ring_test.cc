// SPDX-License-Identifier: Apache-2.0
#include "server/recording/record_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <iterator>
#include <vector>

namespace piserve::server {
namespace {

namespace fs = std::filesystem;

class RecordRingTest : public testing::Test {
 protected:
  RecordRingTest() { fs::remove_all(folder_); }
  ~RecordRingTest() override { fs::remove_all(folder_); }

  std::unique_ptr<RecordRing> Open(std::uint64_t max_bytes = 1000,
                                   std::size_t max_waiting = 100,
                                   std::size_t max_waiting_bytes = 1000) {
    auto ring = RecordRing::Create({.folder = folder_.string(),
                                    .max_bytes = max_bytes,
                                    .max_waiting = max_waiting,
                                    .max_waiting_bytes = max_waiting_bytes});
    EXPECT_TRUE(ring.ok()) << ring.status();
    return *std::move(ring);
  }

  // Contents, by file name.
  std::vector<std::string> Records() const {
    std::vector<fs::path> files;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    std::vector<std::string> records;
    for (const fs::path& path : files) {
      std::ifstream file(path, std::ios::binary);
      records.emplace_back(std::istreambuf_iterator<char>(file),
                           std::istreambuf_iterator<char>());
    }
    return records;
  }

  struct SlowDisk {
    std::promise<void> begun, go;
  };
  // Adds a record, which is its time, and returns once it is being written: to
  // be done when `disk` may go on.
  static void AddSlow(RecordRing& ring, std::int64_t time_us, std::size_t bytes,
                      SlowDisk& disk) {
    ring.Add(time_us, bytes, [&disk, time_us] {
      disk.begun.set_value();
      disk.go.get_future().wait();
      return std::to_string(time_us);
    });
    disk.begun.get_future().wait();
  }

  // Where the first record of time 0 goes.
  fs::path FirstPath() const { return folder_ / "0000000000000000-000000.rec"; }

  const fs::path folder_ =
      fs::path(testing::TempDir()) / "record_ring" /
      testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(RecordRingTest, RecordsAreFilesInOrderOfTheirTime) {
  auto ring = Open();
  ring->Add(30, 1, [] { return "c"; });
  ring->Add(4, 1, [] { return "a"; });
  ring->Add(4, 1, [] { return "b"; });
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"a", "b", "c"}));
}

TEST_F(RecordRingTest, TheOldestGoesWhenTheLimitIsReached) {
  auto ring = Open(/*max_bytes=*/25);
  for (int i = 0; i < 5; ++i) {
    ring->Add(i, 1,
              [i] { return std::string(10, static_cast<char>('0' + i)); });
  }
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"3333333333", "4444444444"}));
}

TEST_F(RecordRingTest, FilesOfAnEarlierRunCountAndGoFirst) {
  auto ring = Open(/*max_bytes=*/25);
  for (int i = 0; i < 2; ++i) ring->Add(i, 1, [] { return "earlier..."; });
  ring = nullptr;
  ring = Open(/*max_bytes=*/25);
  ring->Add(2, 1, [] { return "now......."; });
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"earlier...", "now......."}));
}

TEST_F(RecordRingTest, WhoAddsNeverWaitsAndTheDropIsCounted) {
  auto ring = Open(/*max_bytes=*/1000, /*max_waiting=*/2);
  SlowDisk disk;
  AddSlow(*ring, 0, 1, disk);
  for (int i = 1; i < 5; ++i) {
    ring->Add(i, 1, [i] { return std::to_string(i); });
  }
  EXPECT_EQ(ring->dropped(), 2u);
  disk.go.set_value();
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"0", "1", "2"}));
}

TEST_F(RecordRingTest, WhatWaitsAndIsBeingWrittenIsBoundedInBytesToo) {
  auto ring = Open(/*max_bytes=*/1000, /*max_waiting=*/100,
                   /*max_waiting_bytes=*/10);
  ring->Add(0, 11, [] { return "too large alone"; });
  EXPECT_EQ(ring->dropped(), 1u);
  SlowDisk disk;
  AddSlow(*ring, 1, 6, disk);
  ring->Add(2, 5, [] { return "2"; });
  ring->Add(3, 4, [] { return "3"; });
  ring->Add(4, 1, [] { return "4"; });
  EXPECT_EQ(ring->dropped(), 3u);
  disk.go.set_value();
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"1", "3"}));
}

TEST_F(RecordRingTest, WhatIsWrittenOrLostMakesRoom) {
  auto ring = Open(/*max_bytes=*/1000, /*max_waiting=*/100,
                   /*max_waiting_bytes=*/10);
  fs::create_directory(FirstPath());
  ring->Add(0, 10, [] { return "lost"; });
  while (ring->dropped() == 0) std::this_thread::yield();
  fs::remove(FirstPath());
  ring->Add(1, 10, [] { return "1"; });
  EXPECT_EQ(ring->dropped(), 1u);
  std::uint64_t dropped = 0;
  do {  // until the record before it is written
    dropped = ring->dropped();
    ring->Add(2, 10, [] { return "2"; });
  } while (ring->dropped() > dropped);
  ring.reset();
  EXPECT_EQ(Records(), (std::vector<std::string>{"1", "2"}));
}

TEST_F(RecordRingTest, AFlushWaitsForWhatIsBeingWrittenAndNotForEver) {
  auto ring = Open();
  SlowDisk disk;
  AddSlow(*ring, 0, 1, disk);
  ring->Add(1, 1, [] { return "1"; });
  ring->Flush(absl::Milliseconds(10));
  EXPECT_TRUE(Records().empty());
  disk.go.set_value();
  ring->Flush(absl::InfiniteDuration());
  EXPECT_EQ(Records(), (std::vector<std::string>{"0", "1"}));
}

TEST_F(RecordRingTest, AFolderThatCannotBeWrittenIsRefusedAtTheStart) {
  const auto ring = RecordRing::Create({.folder = "/proc/records"});
  EXPECT_EQ(ring.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(ring.status().message().find("/proc/records"), std::string::npos);
}

TEST_F(RecordRingTest, AFolderThatVanishedIsCountedNotFatal) {
  auto ring = Open();
  fs::remove_all(folder_);
  std::promise<void> encoded;
  ring->Add(0, 1, [&] {
    encoded.set_value();
    return "lost";
  });
  encoded.get_future().wait();
  while (ring->dropped() == 0) std::this_thread::yield();
  ring.reset();
  fs::create_directories(folder_);
  EXPECT_TRUE(Records().empty());
}

TEST_F(RecordRingTest, AFullDiskKeepsNoDraft) {
  auto ring = Open();
  fs::create_symlink("/dev/full", FirstPath().string() + ".new");
  ring->Add(0, 1, [] { return "lost"; });
  while (ring->dropped() == 0) std::this_thread::yield();
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(RecordRingTest, ADraftThatCannotBeRenamedIsDeleted) {
  auto ring = Open();
  fs::create_directory(FirstPath());
  ring->Add(0, 1, [] { return "lost"; });
  while (ring->dropped() == 0) std::this_thread::yield();
  fs::remove(FirstPath());
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(RecordRingTest, DraftsOfAnEarlierRunAreDeleted) {
  fs::create_directories(folder_);
  std::ofstream(FirstPath().string() + ".new") << "half a rec";
  std::ofstream(folder_ / "notes.new") << "not ours";
  Open().reset();
  EXPECT_EQ(Records(), std::vector<std::string>{"not ours"});
}

}  // namespace
}  // namespace piserve::server
