// SPDX-License-Identifier: Apache-2.0
#include "server/status_page.h"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/metrics.h"
#include "server/page_chart.h"
#include "server/refusal.h"

namespace piserve::server {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

prometheus::ClientMetric Histogram(std::vector<std::uint64_t> cumulative) {
  prometheus::ClientMetric metric;
  double bound = 1;
  for (const std::uint64_t count : cumulative) {
    metric.histogram.bucket.push_back({count, bound});
    bound *= 2;
  }
  metric.histogram.bucket.back().upper_bound =
      std::numeric_limits<double>::infinity();
  metric.histogram.sample_count = cumulative.back();
  return metric;
}

TEST(QuantileTest, InterpolatesInsideItsBucket) {
  EXPECT_FALSE(Quantile(Histogram({0, 0, 0}), 0.5).has_value());
  EXPECT_DOUBLE_EQ(*Quantile(Histogram({10, 10, 10}), 0.5), 0.5);
  EXPECT_DOUBLE_EQ(*Quantile(Histogram({0, 10, 10}), 0.5), 1.5);
  EXPECT_DOUBLE_EQ(*Quantile(Histogram({0, 0, 10}), 0.5), 2)
      << "above all finite bounds";
}

TEST(NiceTopTest, IsARoundNumberThatIsHighEnough) {
  EXPECT_EQ(NiceTop(0), 1);
  EXPECT_EQ(NiceTop(1), 1);
  EXPECT_EQ(NiceTop(1.2), 2);
  EXPECT_EQ(NiceTop(4.9), 5);
  EXPECT_EQ(NiceTop(51), 100);
  EXPECT_DOUBLE_EQ(NiceTop(0.03), 0.05);
}

TEST(LineChartTest, BreaksALineWhereThereIsNothing) {
  const std::string chart =
      LineChart("T", "ms", "5 min", {{"p50", "a", {1, {}, 2, 2}}});
  std::size_t lines = 0;
  for (std::size_t at = chart.find("<polyline"); at != std::string::npos;
       at = chart.find("<polyline", at + 1)) {
    ++lines;
  }
  EXPECT_EQ(lines, 2u);
  EXPECT_THAT(chart, HasSubstr("2 ms"));
  EXPECT_THAT(chart, HasSubstr("5 min ago"));
}

TEST(LineChartTest, IsEmptyWithoutSteps) {
  EXPECT_THAT(LineChart("T", "ms", "0 s", {{"p50", "a", {}}}),
              Not(HasSubstr("<polyline")));
}

class StatusPageTest : public ::testing::Test {
 protected:
  StatusPageTest() {
    metrics_.AddPolicy({.policy = "<b>libero</b>",
                        .policy_config = "pi05_libero",
                        .model_digest = "0123456789abcdef0123456789abcdef",
                        .preprocessing_checksum = "def",
                        .backend = "engine",
                        .precision = "bfloat16",
                        .device = "cpu",
                        .kind = DeviceKind::kCpu,
                        .load_time = absl::Seconds(1)});
  }

  void Answer(absl::Duration elapsed, int times) {
    for (int i = 0; i < times; ++i) {
      metrics_.Received(rpc::Method::kInfer);
      metrics_.Completed(rpc::Method::kInfer, absl::OkStatus(), elapsed);
    }
  }

  // `ago` before now.
  void Snap(absl::Duration ago) {
    history_.push_back(std::make_shared<const MetricsSnapshot>(MetricsSnapshot{
        absl::UnixEpoch() - ago, metrics_.registry()->Collect()}));
  }

  std::string Page(const absl::Status& availability = absl::OkStatus()) {
    return StatusPage(history_, availability);
  }

  Metrics metrics_;
  MetricsSnapshots history_;
};

TEST_F(StatusPageTest, ShowsWhetherItIsReadyAndWhyNot) {
  Snap(absl::ZeroDuration());
  EXPECT_THAT(Page(), HasSubstr(">ready<"));
  EXPECT_THAT(Page(WarmingUp()), HasSubstr("not ready: WARMING_UP"));
}

TEST_F(StatusPageTest, SaysWhichBuildItIs) {
  Snap(absl::ZeroDuration());
  EXPECT_THAT(Page(), HasSubstr("version " PISERVE_VERSION ", gcc "));
}

TEST_F(StatusPageTest, EscapesLabels) {
  Snap(absl::ZeroDuration());
  EXPECT_THAT(Page(), HasSubstr("&lt;b&gt;libero&lt;/b&gt;"));
  EXPECT_THAT(Page(), Not(HasSubstr("<b>libero")));
}

TEST_F(StatusPageTest, SaysWhatIsServed) {
  Snap(absl::ZeroDuration());
  for (const char* text :
       {"pi05_libero", "engine", "bfloat16", "0123456789abcdef<"}) {
    EXPECT_THAT(Page(), HasSubstr(text));
  }
}

TEST_F(StatusPageTest, NumbersAreOfTheLastMinuteNotSinceTheStart) {
  Answer(absl::Milliseconds(900), 1000);
  Snap(absl::Seconds(120));
  Snap(absl::Seconds(60));
  Answer(absl::Milliseconds(9), 120);
  Snap(absl::ZeroDuration());
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("<small>answered</small><b>2<span>/s"));
  EXPECT_THAT(page, HasSubstr("<small>latency p50</small><b>9.00<span>ms"));
  EXPECT_THAT(page, HasSubstr("<small>latency p99</small><b>9.98<span>ms"));
  EXPECT_THAT(page, HasSubstr("last 60 s"));
}

TEST_F(StatusPageTest, ShowsHowWavesWereFilled) {
  Snap(absl::Seconds(60));
  metrics_.OnLaunch(0, 3, 4, batching::LaunchReason::kIdle);
  metrics_.OnLaunch(0, 1, 1, batching::LaunchReason::kIdle);
  Snap(absl::ZeroDuration());
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("mean 2.0 rows, 20 % padding"));
  EXPECT_THAT(page, HasSubstr("<td>3–4</td><td class=bar><i "
                              "style=\"width:50.0%\"></i></td>"
                              "<td class=n>1</td>"));
  EXPECT_THAT(page, HasSubstr("<td>5–8</td><td class=bar></td>"
                              "<td class=n>0</td>"));
}

TEST_F(StatusPageTest, ShowsTheQueueAndWhatWasRefused) {
  metrics_.Received(rpc::Method::kInfer);
  metrics_.Completed(rpc::Method::kInfer, WarmingUp(), absl::Milliseconds(1));
  Snap(absl::Seconds(60));
  metrics_.OnQueue(
      {.rows = 7, .bytes = 3 << 20, .predicted = absl::Milliseconds(42)});
  Snap(absl::ZeroDuration());
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("<td>rows waiting</td><td class=n>7</td>"));
  EXPECT_THAT(page,
              HasSubstr("<td>predicted wait, ms</td><td class=n>42.0</td>"));
  EXPECT_THAT(page, HasSubstr("<td>held, MiB</td><td class=n>3.0</td>"));
  EXPECT_THAT(page, HasSubstr("<td>refused</td><td>warming_up</td>"
                              "<td class=n>0</td><td class=n>1</td>"));
}

TEST_F(StatusPageTest, AsksForNothingButItself) {
  Snap(absl::ZeroDuration());
  const std::string page = Page();
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
  for (const char* loads : {"src=", "http://", "https://", "@import", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(loads))) << loads;
  }
}

}  // namespace
}  // namespace piserve::server
