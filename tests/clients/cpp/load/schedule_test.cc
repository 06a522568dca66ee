// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>

namespace piserve::load {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

absl::Duration Ms(int ms) { return absl::Milliseconds(ms); }

// (robot, ms) of every send until none is due without an answer.
std::vector<std::pair<int, int>> PopAll(Schedule& schedule) {
  std::vector<std::pair<int, int>> sends;
  while (schedule.NextTime().has_value()) {
    const Schedule::Send send = schedule.Pop();
    sends.emplace_back(send.robot, absl::ToInt64Milliseconds(send.time));
  }
  return sends;
}

TEST(Schedule, AnOpenLoopsTimesAreFixedAndSpreadOverThePeriod) {
  Schedule schedule(
      {.robots = 2, .period = Ms(100), .end = Ms(250), .loop = Loop::kOpen});
  EXPECT_THAT(PopAll(schedule),
              ElementsAre(Pair(0, 0), Pair(1, 50), Pair(0, 100), Pair(1, 150),
                          Pair(0, 200)));
}

TEST(Schedule, AnswersDoNotMoveAnOpenLoop) {
  Schedule schedule(
      {.robots = 1, .period = Ms(100), .end = Ms(300), .loop = Loop::kOpen});
  schedule.Pop();
  schedule.Answered(0, Ms(250));
  EXPECT_THAT(PopAll(schedule), ElementsAre(Pair(0, 100), Pair(0, 200)));
}

TEST(Schedule, AClosedLoopWaitsForTheAnswer) {
  Schedule schedule(
      {.robots = 1, .period = Ms(100), .end = Ms(900), .loop = Loop::kClosed});
  schedule.Pop();
  EXPECT_FALSE(schedule.NextTime().has_value());
  schedule.Answered(0, Ms(30));
  EXPECT_EQ(schedule.NextTime(), Ms(100));  // Not faster than its rate.
  schedule.Pop();
  schedule.Answered(0, Ms(370));
  EXPECT_EQ(schedule.NextTime(), Ms(370));
}

TEST(Schedule, AClosedLoopWithoutARateSendsAsAnswersCome) {
  Schedule schedule({.robots = 2,
                     .period = absl::ZeroDuration(),
                     .end = Ms(900),
                     .loop = Loop::kClosed});
  EXPECT_THAT(PopAll(schedule), ElementsAre(Pair(0, 0), Pair(1, 0)));
  schedule.Answered(1, Ms(5));
  EXPECT_THAT(PopAll(schedule), ElementsAre(Pair(1, 5)));
}

TEST(Schedule, NothingIsSentFromTheEndOn) {
  Schedule schedule(
      {.robots = 1, .period = Ms(100), .end = Ms(100), .loop = Loop::kClosed});
  schedule.Pop();
  schedule.Answered(0, Ms(20));
  EXPECT_FALSE(schedule.NextTime().has_value());
}

TEST(Schedule, ARobotCountsItsSends) {
  Schedule schedule(
      {.robots = 2, .period = Ms(10), .end = Ms(100), .loop = Loop::kOpen});
  EXPECT_EQ(schedule.Pop().sequence, 0u);
  EXPECT_EQ(schedule.Pop().sequence, 0u);
  EXPECT_EQ(schedule.Pop().sequence, 1u);
}

}  // namespace
}  // namespace piserve::load
