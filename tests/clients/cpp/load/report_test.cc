// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/load/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "clients/cpp/piserve/status.h"

namespace piserve::load {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

absl::Duration Ms(int ms) { return absl::Milliseconds(ms); }

Sample MakeSample(int intended_ms, int answered_ms, absl::Status status,
                  int wave_rows) {
  Sample sample;
  sample.intended = Ms(intended_ms);
  sample.sent = Ms(intended_ms + 1);
  sample.answered = Ms(answered_ms);
  sample.status = std::move(status);
  sample.wave_rows = wave_rows;
  sample.graph_rows = wave_rows;
  return sample;
}

// Two requests in the warm-up of 1 s, then 4 in 2 s: 3 answered, 1 refused.
LoadResult Result() {
  LoadResult result;
  for (int t : {0, 500}) {
    result.samples.push_back(MakeSample(t, t + 900, absl::OkStatus(), 1));
  }
  result.samples.push_back(MakeSample(1000, 1010, absl::OkStatus(), 2));
  result.samples.push_back(MakeSample(1000, 1020, absl::OkStatus(), 2));
  result.samples.push_back(MakeSample(2000, 2030, absl::OkStatus(), 1));
  result.samples.push_back(MakeSample(
      2500, 2502,
      client::WithReason(absl::ResourceExhaustedError("full"), "QUEUE_FULL"),
      0));
  result.stage_ms["gpu"] = {7, 8, 9};
  result.wall = Ms(2900);
  result.sent = 6;
  result.right = 5;
  return result;
}

TEST(Report, CountsWhatCameAfterTheWarmUp) {
  const Report report = MakeReport(Result(), "t", Ms(1000), Ms(3000), true);
  EXPECT_EQ(report.ok_ms.count, 3);
  EXPECT_EQ(report.ok_ms.p50, 20);
  EXPECT_EQ(report.ok_ms.max, 30);
  EXPECT_EQ(report.all_ms.count, 4);
  EXPECT_EQ(report.lag_ms.p50, 1);
  EXPECT_EQ(report.seconds, 2);
  EXPECT_EQ(report.offered_hz, 2);
  EXPECT_EQ(report.achieved_hz, 1.5);
  EXPECT_EQ(report.mean_wave_rows, 1.5);
  EXPECT_THAT(
      report.statuses,
      ElementsAre(Pair("OK", 3), Pair("RESOURCE_EXHAUSTED/QUEUE_FULL", 1)));
}

TEST(Report, AnOverloadsTailCountsAsTime) {
  LoadResult result = Result();
  result.wall = Ms(5000);
  const Report report = MakeReport(result, "t", Ms(1000), Ms(3000), true);
  EXPECT_EQ(report.seconds, 4);
  EXPECT_EQ(report.achieved_hz, 0.75);
}

TEST(Report, TextAndJsonSayTheSame) {
  const Report report = MakeReport(Result(), "t", Ms(1000), Ms(3000), true);
  EXPECT_THAT(ReportText(report), HasSubstr("5 right, 0 wrong"));
  EXPECT_THAT(ReportText(report), HasSubstr("RESOURCE_EXHAUSTED/QUEUE_FULL"));
  const auto json = nlohmann::json::parse(ReportJson(report));
  EXPECT_EQ(json["latency_ms"]["p50"], 20);
  EXPECT_EQ(json["stage_ms"]["gpu"]["p50"], 8);
  EXPECT_EQ(json["statuses"]["OK"], 3);
  EXPECT_EQ(json["right"], 5);
}

TEST(Report, ARunWithoutAnyAnswerIsAllZeros) {
  const Report report =
      MakeReport(LoadResult(), "t", absl::ZeroDuration(), Ms(1000), false);
  EXPECT_EQ(report.ok_ms.count, 0);
  EXPECT_EQ(report.achieved_hz, 0);
  EXPECT_FALSE(nlohmann::json::parse(ReportJson(report)).contains("right"));
}

}  // namespace
}  // namespace piserve::load
