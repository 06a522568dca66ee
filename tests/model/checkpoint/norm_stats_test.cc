// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/norm_stats.h"

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using test::Refuses;
using ::testing::ElementsAre;

constexpr char kActions[] = R"("actions":{"mean":[0],"std":[1]})";

std::string WithState(const std::string& state) {
  return "{\"norm_stats\":{\"state\":" + state + "," + kActions + "}}";
}

TEST(NormStatsTest, AllFieldsAreRead) {
  const auto stats = ParseNormStats(
      WithState(R"({"mean":[1,2.5],"std":[3,0],"q01":[-1,-2],"q99":[1e3,2]})"));
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_THAT(stats->state.mean, ElementsAre(1, 2.5));
  EXPECT_THAT(stats->state.std, ElementsAre(3, 0));
  EXPECT_THAT(*stats->state.q01, ElementsAre(-1, -2));
  EXPECT_THAT(*stats->state.q99, ElementsAre(1000, 2));
  EXPECT_THAT(stats->actions.mean, ElementsAre(0));
}

TEST(NormStatsTest, PercentilesMayBeAbsentOrNull) {
  for (const char* state :
       {R"({"mean":[1],"std":[1]})",
        R"({"mean":[1],"std":[1],"q01":null,"q99":null})"}) {
    const auto stats = ParseNormStats(WithState(state));
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_FALSE(stats->state.q01.has_value());
    EXPECT_FALSE(stats->state.q99.has_value());
  }
}

TEST(NormStatsTest, UnknownFieldsAreIgnored) {
  EXPECT_TRUE(
      ParseNormStats(R"({"version":2,"norm_stats":{"extra":{"mean":"x"},)"
                     R"("state":{"mean":[1],"std":[1],"min":[null]},)"
                     R"("actions":{"mean":[0],"std":[1]}}})")
          .ok());
}

TEST(NormStatsTest, TheGoldenStatisticsAreRead) {
  struct Case {
    const char* id;
    std::size_t state;
    std::size_t actions;
  };
  for (const Case& c : {Case{"physical-intelligence/libero", 8, 7},
                        Case{"trossen", 14, 14}, Case{"droid", 8, 8}}) {
    const auto stats = ReadNormStats(piserve::test::GoldenPath(
        std::string("tiny_pi0/assets/") + c.id + "/norm_stats.json"));
    ASSERT_TRUE(stats.ok()) << stats.status();
    EXPECT_EQ(stats->state.mean.size(), c.state);
    EXPECT_EQ(stats->actions.mean.size(), c.actions);
    EXPECT_TRUE(CheckNormStats(*stats, NormMode::kQuantile, 32).ok());
  }
}

TEST(NormStatsTest, NumbersSurviveToTheLastBit) {
  const auto stats = ReadNormStats(
      piserve::test::GoldenPath("tiny_pi0/assets/droid/norm_stats.json"));
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_EQ(stats->state.mean[0], 0.10757808685302735);
  EXPECT_EQ(stats->actions.q99->at(7), 0.8894401693344117);
}

TEST(NormStatsTest, WhatIsNoFiniteNumberIsRefused) {
  for (const char* value : {"NaN", "Infinity", "-Infinity", "1e999"}) {
    EXPECT_THAT(ParseNormStats(WithState(std::string("{\"mean\":[") + value +
                                         "],\"std\":[1]}")),
                Refuses({"not JSON at byte"}))
        << value;
  }
  for (const char* value : {"null", "\"1\"", "true", "[1]", "{}"}) {
    EXPECT_THAT(ParseNormStats(WithState(std::string("{\"mean\":[0,") + value +
                                         "],\"std\":[1,1]}")),
                Refuses({"norm_stats.state.mean[1]", "finite number"}))
        << value;
  }
}

TEST(NormStatsTest, AListThatIsNoneIsRefused) {
  for (const char* list : {"[]", "3", "null", "{\"0\":1}"}) {
    EXPECT_THAT(ParseNormStats(WithState(std::string("{\"mean\":") + list +
                                         ",\"std\":[1]}")),
                Refuses({"norm_stats.state.mean", "list of numbers"}))
        << list;
  }
  EXPECT_THAT(ParseNormStats(WithState(R"({"mean":[1],"std":[1],"q01":3})")),
              Refuses({"norm_stats.state.q01"}));
  EXPECT_THAT(
      ParseNormStats(WithState(R"({"mean":[1],"std":[1],"q99":[null]})")),
      Refuses({"norm_stats.state.q99[0]"}));
}

TEST(NormStatsTest, UnequalLengthsAreRefused) {
  EXPECT_THAT(ParseNormStats(WithState(R"({"mean":[1,2],"std":[1]})")),
              Refuses({"norm_stats.state.std", "got 1 numbers, want 2"}));
  EXPECT_THAT(
      ParseNormStats(WithState(R"({"mean":[1],"std":[1],"q01":[1,2]})")),
      Refuses({"norm_stats.state.q01", "got 2 numbers, want 1"}));
  EXPECT_THAT(
      ParseNormStats(WithState(R"({"mean":[1],"std":[1],"q99":[1,2]})")),
      Refuses({"norm_stats.state.q99", "got 2 numbers, want 1"}));
}

TEST(NormStatsTest, ANegativeDeviationIsRefused) {
  EXPECT_THAT(ParseNormStats(WithState(R"({"mean":[1],"std":[-1e-6]})")),
              Refuses({"norm_stats.state.std", "negative"}));
}

TEST(NormStatsTest, MissingPartsAreNamed) {
  EXPECT_THAT(ParseNormStats("{}"), Refuses({"norm_stats: missing"}));
  EXPECT_THAT(ParseNormStats(R"({"norm_stats":{}})"),
              Refuses({"norm_stats.state: missing"}));
  EXPECT_THAT(ParseNormStats(WithState(R"({"mean":[1]})")),
              Refuses({"norm_stats.state.std: missing"}));
  EXPECT_THAT(
      ParseNormStats(R"({"norm_stats":{"state":{"mean":[1],"std":[1]}}})"),
      Refuses({"norm_stats.actions: missing"}));
  EXPECT_THAT(ParseNormStats("[]"), Refuses({"top level", "want an object"}));
  EXPECT_THAT(ParseNormStats(R"({"norm_stats":7})"),
              Refuses({"norm_stats", "got 7"}));
}

TEST(NormStatsTest, AFieldGivenTwiceIsRefused) {
  EXPECT_THAT(ParseNormStats(WithState(R"({"mean":[1],"mean":[2],"std":[1]})")),
              Refuses({"\"mean\" is given twice"}));
}

TEST(NormStatsTest, QuantilePoliciesNeedBothPercentiles) {
  const auto stats = ParseNormStats(
      WithState(R"({"mean":[1],"std":[1],"q01":[0],"q99":[1]})"));
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_TRUE(CheckNormStats(*stats, NormMode::kMeanStd, 32).ok());
  EXPECT_THAT(CheckNormStats(*stats, NormMode::kQuantile, 32),
              Refuses({"norm_stats.actions", "q01 or q99 missing"}));
}

TEST(NormStatsTest, PercentilesThatAreTheWrongWayRoundAreRefused) {
  const auto stats = ParseNormStats(
      WithState(R"({"mean":[1,1],"std":[1,1],"q01":[0,3],"q99":[0,2.5]})"));
  ASSERT_TRUE(stats.ok()) << stats.status();
  EXPECT_THAT(CheckNormStats(*stats, NormMode::kQuantile, 32),
              Refuses({"norm_stats.state.q99[1]", "got 2.5",
                       "want no less than q01's 3"}));
  EXPECT_TRUE(CheckNormStats(*stats, NormMode::kMeanStd, 32).ok());
}

TEST(NormStatsTest, MoreDimensionsThanTheModelHasAreRefused) {
  EXPECT_TRUE(CheckNormStats(UnitNormStats(3), NormMode::kQuantile, 3).ok());
  EXPECT_THAT(CheckNormStats(UnitNormStats(4), NormMode::kQuantile, 3),
              Refuses({"norm_stats.state", "got 4 dimensions", "3"}));
}

}  // namespace
}  // namespace piserve::checkpoint
