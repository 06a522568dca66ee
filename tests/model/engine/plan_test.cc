// SPDX-License-Identifier: Apache-2.0
#include "model/engine/plan.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace piserve::engine {
namespace {

Plan Example() {
  Plan plan;
  plan.key = "engine=1 device=one with spaces";
  plan.gemms[{.m = 816, .n = 2560, .k = 2048}] = {1, 2, 0xFFFFFFFFFFFFFFFF};
  plan.gemms[{.m = 1,
              .n = 2,
              .k = 3,
              .epilogue = Epilogue::kGeluBias,
              .output = Output::kAccumulate,
              .type = GemmType::kBf16ToFp32}] = {};
  plan.persistent = {1, 2};
  plan.costs.prefix[{.rows = 8, .cameras = 3, .prompt_tokens = 48}] = {
      absl::Milliseconds(11), absl::Milliseconds(40)};
  plan.costs.steps[1] = {absl::Microseconds(450), absl::Microseconds(440)};
  plan.costs.steps[16] = {absl::Microseconds(2100), absl::Microseconds(2000)};
  plan.costs.transfer = absl::Microseconds(9);
  plan.hashes = {{1, 0x123456789ABCDEF0}, {64, 7}};
  return plan;
}

std::string TemporaryFile(const char* name) {
  return std::filesystem::path(testing::TempDir()) / name;
}

// What this process writes before it takes the plan's name.
std::string DraftOf(const std::string& path) {
  return path + "." + std::to_string(getpid()) + ".new";
}

TEST(PlanTest, WhatIsWrittenIsRead) {
  const std::string text = ToText(Example());
  const auto read = ParsePlan(text);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToText(*read), text);
  EXPECT_EQ(read->key, Example().key);
  EXPECT_EQ(read->gemms, Example().gemms);
  EXPECT_EQ(read->persistent, Example().persistent);
  EXPECT_EQ(read->hashes, Example().hashes);
}

TEST(PlanTest, AWrongLineIsNamed) {
  const std::string text = ToText(Example());
  for (const std::string bad :
       {"gemm 1 2 3 4 5 6", "prefix 1 2", "hash x y", "surprise", "",
        "persistent many", "steps 1 450000 440000",
        "persistent 2"}) {  // the last two: doubled
    const auto read = ParsePlan(text + bad + "\n");
    ASSERT_FALSE(read.ok()) << bad;
    EXPECT_EQ(read.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(read.status().message().find("line 13"), std::string::npos)
        << read.status();
  }
  EXPECT_FALSE(ParsePlan("").ok());
  EXPECT_FALSE(ParsePlan("piserve-plan 0\n").ok());
}

TEST(PlanTest, AFileIsReplacedAsAWhole) {
  const std::string path = TemporaryFile("folder/plan");
  ASSERT_TRUE(WritePlan(path, Example()).ok());
  Plan changed = Example();
  changed.key = "another";
  ASSERT_TRUE(WritePlan(path, changed).ok());
  const auto read = ReadPlan(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->key, "another");
  EXPECT_FALSE(std::filesystem::exists(DraftOf(path)));
}

// One server a device, all with one configuration.
TEST(PlanTest, TwoServersMayWriteAtOnce) {
  const std::string path = TemporaryFile("shared/plan");
  const pid_t other = fork();
  int refused = 0;
  for (int i = 0; i < 50; ++i) refused += !WritePlan(path, Example()).ok();
  if (other == 0) _exit(refused);
  int status = 0;
  ASSERT_EQ(waitpid(other, &status, 0), other);
  EXPECT_EQ(refused, 0);
  EXPECT_EQ(status, 0);
  const auto read = ReadPlan(path);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(ToText(*read), ToText(Example()));
}

TEST(PlanTest, AMissingFileIsNotFound) {
  EXPECT_EQ(ReadPlan(TemporaryFile("none")).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(PlanTest, AFolderThatCannotBeWrittenIsSaid) {
  EXPECT_EQ(WritePlan("/proc/plan", Example()).code(),
            absl::StatusCode::kUnavailable);
}

TEST(PlanTest, AFullDiskIsSaidAndTheOldPlanIsKept) {
  const std::string path = TemporaryFile("full/plan");
  ASSERT_TRUE(WritePlan(path, Example()).ok());
  std::filesystem::create_symlink("/dev/full", DraftOf(path));
  const absl::Status status = WritePlan(path, Example());
  std::filesystem::remove(DraftOf(path));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(status.message().find("No space left"), std::string::npos)
      << status;
  EXPECT_TRUE(ReadPlan(path).ok());
}

TEST(CostTableTest, AWaveTakesItsMicroWavesAndItsSteps) {
  const CostTable costs = Example().costs;
  const WaveLayout layout = {
      .prefix = {.rows = 8, .cameras = 3, .prompt_tokens = 48},
      .micro_waves = 2,
      .rows = 16};
  EXPECT_EQ(costs.Predict(layout, 10),
            2 * absl::Milliseconds(51) + absl::Microseconds(2100) +
                9 * absl::Milliseconds(2) + 16 * absl::Microseconds(9));
}

TEST(CostTableTest, WhatWasNeverMeasuredTakesForEver) {
  const CostTable costs = Example().costs;
  EXPECT_EQ(costs.Predict({.prefix = {.rows = 4}, .rows = 1}, 10),
            absl::InfiniteDuration());
}

}  // namespace
}  // namespace piserve::engine
