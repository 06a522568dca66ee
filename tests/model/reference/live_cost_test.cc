// SPDX-License-Identifier: Apache-2.0
#include "model/reference/live_cost.h"

#include <gtest/gtest.h>

#include <vector>

#include "batching/admission.h"

namespace piserve::reference {
namespace {

using Load = LiveCost::Load;

constexpr absl::Duration kRow = absl::Milliseconds(40);

// Every row costs the same.
CostModel Flat(absl::Duration row) {
  const RowTimes times{absl::ZeroDuration(), row, absl::ZeroDuration()};
  return CostModel::Fit(10, {1, 1, 1, times}, {3, 50, 1, times});
}

class LiveCostTest : public ::testing::Test {
 protected:
  void Start(absl::Duration measured) { cost_.Reset(Flat(measured), now_); }
  absl::Duration Predict(Load load = Load::kBusy) const {
    return cost_.Predict({}, load, now_);
  }
  void RowTook(absl::Duration took) {
    now_ += took;
    cost_.Observe({}, took, now_);
  }
  void Pass(absl::Duration idle) { now_ += idle; }

  absl::Time now_ = absl::UnixEpoch();
  LiveCost cost_;
};

TEST_F(LiveCostTest, SaysWhatTheModelSaysUntilARowHasRun) {
  Start(kRow);
  EXPECT_EQ(Predict(), kRow);
  EXPECT_EQ(Predict(Load::kIdle), kRow);
}

TEST_F(LiveCostTest, OneFastRowCorrectsASlowStart) {
  Start(10 * kRow);
  RowTook(kRow);
  EXPECT_EQ(Predict(), kRow);
}

TEST_F(LiveCostTest, ScalesEveryShapeAlike) {
  Start(10 * kRow);
  RowTook(kRow);
  EXPECT_EQ(cost_.Predict({.rows = 4}, Load::kBusy, now_), 4 * kRow);
}

TEST_F(LiveCostTest, OneSlowRowHardlyMattersAndManyDo) {
  Start(10 * kRow);
  RowTook(kRow);
  RowTook(5 * kRow);
  EXPECT_LE(Predict(), 1.5 * kRow);
  for (int i = 0; i < 50; ++i) RowTook(5 * kRow);
  EXPECT_GE(Predict(), 4.5 * kRow);
}

TEST_F(LiveCostTest, NeverExceedsWhatWasFitted) {
  Start(kRow);
  for (int i = 0; i < 50; ++i) RowTook(20 * kRow);
  EXPECT_EQ(Predict(), kRow);
}

TEST_F(LiveCostTest, LongIdlenessMakesItDoubtItselfUntilARowRuns) {
  Start(kRow);
  Pass(absl::Seconds(3));
  EXPECT_EQ(Predict(Load::kIdle), kRow / 2);
  Pass(absl::Hours(1));
  EXPECT_EQ(Predict(Load::kIdle), kRow / 16);
  EXPECT_EQ(Predict(Load::kBusy), kRow) << "a watchdog counts on it";
  RowTook(kRow);
  EXPECT_EQ(Predict(Load::kIdle), kRow);
}

TEST_F(LiveCostTest, ASlowPolicyIsDoubtedLater) {
  Start(absl::Seconds(30));
  Pass(absl::Minutes(9));
  EXPECT_EQ(Predict(Load::kIdle), absl::Seconds(30));
}

// An executor whose predictions are a LiveCost's.
class Traits : public batching::ExecutorTraits {
 public:
  Traits(const LiveCost& cost, const absl::Time& now)
      : cost_(cost), now_(now) {}
  const std::vector<int>& sizes() const override { return sizes_; }
  int slots() const override { return 1; }
  bool Serves(std::uint64_t) const override { return true; }
  bool healthy() const override { return true; }
  absl::Duration Predict(const batching::WaveCost& cost) const override {
    return cost_.Predict({.rows = cost.rows,
                          .cameras = cost.cameras,
                          .prompt_tokens = cost.prompt_tokens,
                          .steps = cost.steps},
                         Load::kIdle, now_);
  }

 private:
  const LiveCost& cost_;
  const absl::Time& now_;
  const std::vector<int> sizes_ = {1};
};

TEST_F(LiveCostTest, AStartOnABusyMachineDoesNotRefuseForEver) {
  Start(10 * kRow);
  const Traits traits(cost_, now_);
  int refused_at_last = 0;
  for (int request = 0; request < 200; ++request) {
    Pass(absl::Milliseconds(100));
    batching::Load load;
    load.ahead.executors = {{&traits, 0, now_, {}}};
    batching::TaskTraits task;
    task.deadline = now_ + 5 * kRow;
    const bool refused = batching::Judge({}, {}, load, task, now_).has_value();
    if (!refused) RowTook(kRow);
    if (request >= 100) refused_at_last += refused;
  }
  EXPECT_EQ(refused_at_last, 0);
}

}  // namespace
}  // namespace piserve::reference
