// SPDX-License-Identifier: Apache-2.0
#include "model/reference/wave_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <future>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>
#include <vector>

#include "model/error.h"
#include "model/reference/cost_model.h"
#include "model/reference/slot_pool.h"

namespace piserve::reference {
namespace {

Variant SmallVariant() {
  Variant variant;
  variant.vision.image = 2;
  variant.vocab = 10;
  variant.action_dim = 2;
  variant.action_horizon = 3;
  variant.max_token_len = 4;
  return variant;
}

// Writes the row's state[0] everywhere.
RowTimes Echo(const SlotRow& row, int, std::span<float> actions) {
  std::fill(actions.begin(), actions.end(), row.state[0]);
  return {absl::Milliseconds(1), absl::Milliseconds(2), absl::Milliseconds(3)};
}

class WaveWorkerTest : public testing::Test {
 protected:
  // A wave whose rows hold states first, first + 1, ...
  Wave MakeWave(int rows, float first) {
    auto slot = pool_->Acquire(rows);
    EXPECT_TRUE(slot.ok()) << slot.status();
    for (int i = 0; i < rows; ++i) {
      const SlotRow row = (*slot)->row(i);
      row.state[0] = first + i;
      *row.token_count = 1;
      row.tokens[0] = 2;
    }
    return {*std::move(slot), {.rows = rows}};
  }

  static WaveResult RunOne(WaveWorker& worker, Wave wave) {
    std::promise<WaveResult> promise;
    worker.Submit(std::move(wave), [&promise](WaveResult result) {
      promise.set_value(std::move(result));
    });
    return promise.get_future().get();
  }

  static float Action(const WaveResult& result, int row) {
    return result.slot->row(row).actions[0];
  }

  std::shared_ptr<SlotPool> pool_ =
      std::make_shared<SlotPool>(SmallVariant(), 4, 3);
};

TEST_F(WaveWorkerTest, EveryRowGetsItsOwnActionsAndStagesAddUp) {
  WaveWorker worker(SmallVariant(), Echo);
  const WaveResult result = RunOne(worker, MakeWave(3, 5));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(result.row_status[i].ok());
    EXPECT_EQ(Action(result, i), 5 + i);
  }
  EXPECT_EQ(result.graph_rows, 3);
  ASSERT_EQ(result.stages.size(), 3);
  EXPECT_EQ(result.stages[2].stage, "denoise");
  EXPECT_EQ(result.stages[2].duration, absl::Milliseconds(9));
}

TEST_F(WaveWorkerTest, NonFiniteRowIsWithheldAndItsNeighboursAreNot) {
  WaveWorker worker(SmallVariant(), Echo);
  Wave wave = MakeWave(3, 5);
  wave.slot->row(1).state[0] = std::numeric_limits<float>::infinity();
  const WaveResult result = RunOne(worker, std::move(wave));
  EXPECT_TRUE(result.row_status[0].ok());
  EXPECT_EQ(result.row_status[1].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(result.row_status[1]), "NON_FINITE_OUTPUT");
  EXPECT_TRUE(std::isnan(Action(result, 1)));
  EXPECT_TRUE(result.row_status[2].ok());
  EXPECT_EQ(Action(result, 2), 7);
  EXPECT_TRUE(worker.healthy());
}

TEST_F(WaveWorkerTest, TokensThatDoNotFitFailTheirRowAlone) {
  WaveWorker worker(SmallVariant(), Echo);
  Wave wave = MakeWave(3, 5);
  *wave.slot->row(0).token_count = 5;
  wave.slot->row(1).tokens[0] = 10;
  const WaveResult result = RunOne(worker, std::move(wave));
  EXPECT_EQ(result.row_status[0].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(result.row_status[1].code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(result.row_status[2].ok());
  EXPECT_EQ(result.graph_rows, 1);
}

TEST_F(WaveWorkerTest, ARowWithoutTokensFailsAlone) {
  WaveWorker worker(SmallVariant(), Echo);
  Wave wave = MakeWave(2, 5);
  *wave.slot->row(0).token_count = 0;
  const WaveResult result = RunOne(worker, std::move(wave));
  EXPECT_EQ(result.row_status[0],
            absl::InvalidArgumentError("tokens: got 0, want 1 to 4"));
  EXPECT_TRUE(result.row_status[1].ok());
}

TEST_F(WaveWorkerTest, ExceptionFailsAllRowsAndAllLaterWaves) {
  WaveWorker worker(SmallVariant(), [](const SlotRow& row, int steps,
                                       std::span<float> actions) {
    if (row.state[0] == 6) throw std::runtime_error("fault");
    return Echo(row, steps, actions);
  });
  const WaveResult result = RunOne(worker, MakeWave(3, 5));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(result.row_status[i].code(), absl::StatusCode::kInternal);
    EXPECT_EQ(ReasonOf(result.row_status[i]), "DEVICE_FAULT");
    EXPECT_TRUE(std::isnan(Action(result, i)));
  }
  EXPECT_FALSE(worker.healthy());
  EXPECT_EQ(RunOne(worker, MakeWave(1, 0)).row_status[0].code(),
            absl::StatusCode::kInternal);
}

TEST_F(WaveWorkerTest, ShapeThatDoesNotFitItsSlotIsRefused) {
  WaveWorker worker(SmallVariant(), Echo);
  Wave many = MakeWave(1, 0);
  many.shape.rows = 2;
  EXPECT_EQ(RunOne(worker, std::move(many)).row_status[0].code(),
            absl::StatusCode::kInvalidArgument);
  Wave still = MakeWave(1, 0);
  still.shape.steps = 0;
  EXPECT_EQ(RunOne(worker, std::move(still)).row_status[0].code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(RunOne(worker, {nullptr, {.rows = 1}}).row_status[0].code(),
            absl::StatusCode::kInvalidArgument);
}

TEST_F(WaveWorkerTest, DestructorCompletesEachWaveOnceInOrder) {
  std::promise<void> go;
  std::vector<float> order;
  {
    WaveWorker worker(SmallVariant(), [future = go.get_future().share()](
                                          const SlotRow& row, int steps,
                                          std::span<float> actions) {
      future.wait();
      return Echo(row, steps, actions);
    });
    for (int i = 0; i < 4; ++i) {  // returns although nothing can run
      worker.Submit(MakeWave(1, i), [&order](WaveResult result) {
        order.push_back(Action(result, 0));
      });
    }
    go.set_value();
  }
  EXPECT_THAT(order, testing::ElementsAre(0, 1, 2, 3));
}

TEST(SlotPoolTest, LendsSoManySlotsAndTakesThemBack) {
  const auto pool = std::make_shared<SlotPool>(SmallVariant(), 2, 3);
  auto first = pool->Acquire(1);
  auto second = pool->Acquire(3);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ((*second)->capacity(), 3);
  EXPECT_EQ(pool->Acquire(1).status().code(),
            absl::StatusCode::kResourceExhausted);
  first->reset();
  EXPECT_TRUE(pool->Acquire(1).ok());
}

TEST(SlotPoolTest, RefusesRowsThatNoBatchSizeHolds) {
  const auto pool = std::make_shared<SlotPool>(SmallVariant(), 2, 3);
  for (int rows : {-1, 0, 4}) {
    EXPECT_EQ(pool->Acquire(rows).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST(SlotPoolTest, RowsDoNotOverlapAndHaveTheVariantsSizes) {
  const auto pool = std::make_shared<SlotPool>(SmallVariant(), 1, 3);
  auto slot = *pool->Acquire(3);
  for (int i = 0; i < 3; ++i) {
    const SlotRow row = slot->row(i);
    EXPECT_EQ(row.pixels.size(), 3 * 2 * 2 * 3);
    EXPECT_EQ(row.camera_mask.size(), 3);
    EXPECT_EQ(row.tokens.size(), 4);
    EXPECT_EQ(row.state.size(), 2);
    EXPECT_EQ(row.noise.size(), 6);
    EXPECT_EQ(row.actions.size(), 6);
    if (i == 0) continue;
    const SlotRow before = slot->row(i - 1);
    EXPECT_EQ(before.pixels.data() + before.pixels.size(), row.pixels.data());
    EXPECT_EQ(before.noise.data() + before.noise.size(), row.noise.data());
  }
}

TEST(SlotPoolTest, SlotMayOutliveThePool) {
  auto pool = std::make_shared<SlotPool>(SmallVariant(), 1, 1);
  auto slot = *pool->Acquire(1);
  pool.reset();
  EXPECT_EQ(slot->row(0).actions.size(), 6);
}

TEST(CostModelTest, ReturnsItsSamplesAndScalesWithRowsCamerasAndSteps) {
  const CostSample small{
      1,
      0,
      2,
      {absl::Milliseconds(2), absl::Milliseconds(20), absl::Milliseconds(8)}};
  const CostSample large{
      3,
      50,
      2,
      {absl::Milliseconds(6), absl::Milliseconds(70), absl::Milliseconds(13)}};
  const CostModel model = CostModel::Fit(100, small, large);
  const auto predict = [&](int rows, int cameras, int tokens, int steps) {
    return absl::ToDoubleMilliseconds(model.Predict({.rows = rows,
                                                     .cameras = cameras,
                                                     .prompt_tokens = tokens,
                                                     .steps = steps}));
  };
  EXPECT_NEAR(predict(1, 1, 0, 2), 30, 1e-6);
  EXPECT_NEAR(predict(1, 3, 50, 2), 89, 1e-6);
  EXPECT_NEAR(predict(4, 3, 50, 2), 4 * 89, 1e-6);
  EXPECT_NEAR(predict(1, 3, 50, 10), 76 + 65, 1e-6);
}

TEST(CostModelTest, NoiseInTheSamplesNeverMakesMoreTokensCheaper) {
  const CostSample small{
      1,
      0,
      1,
      {absl::Milliseconds(1), absl::Milliseconds(9), absl::Milliseconds(9)}};
  const CostSample large{
      3,
      50,
      1,
      {absl::Milliseconds(3), absl::Milliseconds(5), absl::Milliseconds(5)}};
  const CostModel model = CostModel::Fit(100, small, large);
  EXPECT_LE(model.Predict({.rows = 1, .cameras = 1, .prompt_tokens = 0}),
            model.Predict({.rows = 1, .cameras = 3, .prompt_tokens = 50}));
}

}  // namespace
}  // namespace piserve::reference
