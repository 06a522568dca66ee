// SPDX-License-Identifier: Apache-2.0
#include "server/metrics_history.h"

#include <atomic>
#include <thread>

#include "gtest/gtest.h"
#include "prometheus/counter.h"
#include "prometheus/gauge.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/metric_series.h"

namespace piserve::server {
namespace {

class SinceTest : public ::testing::Test {
 protected:
  prometheus::Registry registry_;
};

TEST_F(SinceTest, CountersAndHistogramsAreLessWhatTheyWereGaugesAreNow) {
  auto& counter =
      prometheus::BuildCounter().Name("c").Register(registry_).Add({});
  auto& gauge = prometheus::BuildGauge().Name("g").Register(registry_).Add({});
  auto& histogram =
      prometheus::BuildHistogram().Name("h").Register(registry_).Add(
          {}, prometheus::Histogram::BucketBoundaries{1, 2});
  counter.Increment(3);
  gauge.Set(10);
  histogram.Observe(0.5);
  const auto before = registry_.Collect();
  counter.Increment(4);
  gauge.Set(7);
  histogram.Observe(0.5);
  histogram.Observe(1.5);

  const auto since = Since(before, registry_.Collect());
  EXPECT_EQ(SumOf(since, "c"), 4);
  EXPECT_EQ(SumOf(since, "g"), 7);
  const auto h = HistogramOf(since, "h", [](const auto&) { return true; });
  EXPECT_EQ(h.histogram.sample_count, 2u);
  EXPECT_DOUBLE_EQ(h.histogram.sample_sum, 2);
  EXPECT_EQ(h.histogram.bucket[0].cumulative_count, 1u);
  EXPECT_EQ(h.histogram.bucket[1].cumulative_count, 2u);
}

TEST_F(SinceTest, NewSeriesCountsFromZero) {
  auto& family = prometheus::BuildCounter().Name("c").Register(registry_);
  family.Add({{"why", "a"}}).Increment(2);
  const auto before = registry_.Collect();
  family.Add({{"why", "b"}}).Increment(5);
  const auto since = Since(before, registry_.Collect());
  for (const auto& metric : SeriesOf(since, "c")) {
    EXPECT_EQ(metric.counter.value, LabelOf(metric, "why") == "b" ? 5 : 0);
  }
}

TEST(HistogramOfTest, AddsUpWhatTheFilterTakes) {
  prometheus::Registry registry;
  auto& family = prometheus::BuildHistogram().Name("h").Register(registry);
  const prometheus::Histogram::BucketBoundaries bounds = {1, 2};
  family.Add({{"k", "a"}}, bounds).Observe(0.5);
  family.Add({{"k", "b"}}, bounds).Observe(1.5);
  family.Add({{"k", "c"}}, bounds).Observe(9);
  const auto sum = HistogramOf(registry.Collect(), "h", [](const auto& m) {
    return LabelOf(m, "k") != "c";
  });
  EXPECT_EQ(sum.histogram.sample_count, 2u);
  EXPECT_EQ(sum.histogram.bucket[0].cumulative_count, 1u);
  EXPECT_EQ(sum.histogram.bucket[1].cumulative_count, 2u);
  EXPECT_EQ(
      HistogramOf(registry.Collect(), "other", [](const auto&) { return true; })
          .histogram.sample_count,
      0u);
}

// A snapshot says how many were taken before it.
class Counting {
 public:
  MetricsHistory::Options Options(absl::Duration interval, std::size_t kept) {
    return {.collect =
                [this] {
                  prometheus::MetricFamily family;
                  family.name = "n";
                  family.metric.resize(1);
                  family.metric[0].counter.value = taken++;
                  return std::vector{family};
                },
            .interval = interval,
            .kept = kept};
  }
  void WaitFor(int count) const {
    while (taken < count) std::this_thread::yield();
  }
  std::atomic<int> taken = 0;
};

TEST(MetricsHistoryTest, EndsWithASnapshotTakenNow) {
  Counting counting;
  MetricsHistory history(counting.Options(absl::Hours(1), 10));
  counting.WaitFor(1);
  const MetricsSnapshots first = history.Get();
  const MetricsSnapshots second = history.Get();
  EXPECT_GT(SumOf(second.back()->metrics, "n"),
            SumOf(first.back()->metrics, "n"));
  EXPECT_LE(second.size(), 2u) << "asking is not remembered";
}

TEST(MetricsHistoryTest, KeepsTheLastOnesInOrder) {
  Counting counting;
  MetricsHistory history(counting.Options(absl::Microseconds(100), 3));
  counting.WaitFor(20);
  const MetricsSnapshots all = history.Get();
  ASSERT_LE(all.size(), 4u);
  ASSERT_GE(all.size(), 2u);
  EXPECT_GE(SumOf(all.front()->metrics, "n"), 10) << "old ones are forgotten";
  for (std::size_t i = 1; i < all.size(); ++i) {
    EXPECT_LT(all[i - 1]->time, all[i]->time);
    EXPECT_LT(SumOf(all[i - 1]->metrics, "n"), SumOf(all[i]->metrics, "n"));
  }
}

TEST(MetricsHistoryTest, EndsAtOnceInTheMiddleOfAnInterval) {
  Counting counting;
  {
    MetricsHistory history(counting.Options(absl::Hours(1), 3));
    counting.WaitFor(1);
  }
  EXPECT_EQ(counting.taken, 1);
}

}  // namespace
}  // namespace piserve::server
