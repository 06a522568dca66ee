// SPDX-License-Identifier: Apache-2.0
#include "batching/batch_runner.h"

#include <gtest/gtest.h>

#include "tests/batching/puppet.h"

namespace piserve::batching {
namespace {

class BatchRunnerTest : public testing::Test {
 protected:
  void Begin(std::uint64_t id, double predicted_ms, double at_ms) {
    LaunchedWave wave;
    wave.id = id;
    wave.bytes = 10;
    wave.predicted = Ms(predicted_ms);
    runner_.Begin(wave, At(at_ms));
  }
  absl::Time FreeAt(double now_ms) const {
    return runner_.State(At(now_ms)).free_at;
  }

  FakeExecutorTraits<ExecutorTraits> executor_;
  BatchRunner runner_{&executor_};
};

TEST_F(BatchRunnerTest, WavesRunOneAfterAnother) {
  EXPECT_EQ(FreeAt(3), At(3));
  Begin(1, 10, 0);
  Begin(2, 20, 5);
  EXPECT_EQ(FreeAt(6), At(30));
  EXPECT_EQ(runner_.State(At(6)).in_flight, 2);
  EXPECT_EQ(runner_.State(At(6)).last_wave, Ms(20));
  EXPECT_EQ(runner_.bytes(), 20);
}

TEST_F(BatchRunnerTest, AnOverdueWaveDelaysTheNextFromNowOn) {
  Begin(1, 10, 0);
  Begin(2, 20, 5);
  EXPECT_EQ(FreeAt(14), At(34));
}

TEST_F(BatchRunnerTest, TheNextWaveStartsWhenTheFirstEnds) {
  Begin(1, 10, 0);
  Begin(2, 20, 5);
  EXPECT_EQ(runner_.End(1, At(8)).duration, Ms(8));
  EXPECT_EQ(FreeAt(9), At(28));
  EXPECT_EQ(runner_.End(2, At(27)).duration, Ms(19));
  EXPECT_TRUE(runner_.idle());
}

TEST_F(BatchRunnerTest, WavesMayBeReportedOutOfOrder) {
  Begin(1, 10, 0);
  Begin(2, 20, 5);
  EXPECT_EQ(runner_.End(2, At(9)).wave.id, 2);
  EXPECT_EQ(FreeAt(9), At(10));
  EXPECT_EQ(runner_.End(1, At(10)).duration, Ms(10));
}

}  // namespace
}  // namespace piserve::batching
