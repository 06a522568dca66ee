// SPDX-License-Identifier: Apache-2.0
// What becomes of waves and of a start when the device fails or is too small.
// Each case has a process of its own: a fault loses the device for all of one.
#include <ATen/cuda/CUDAContextLight.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/engine/policy.h"
#include "model/error.h"
#include "tests/model/engine/bench_call.h"
#include "tests/model/engine/device_faults.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::engine {
namespace {

using ::testing::ExitedWithCode;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

class EngineFaultTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
  }
};

// In a process of a death test: 0 if nothing failed there.
[[noreturn]] void Report(void (*check)()) {
  check();
  std::fflush(nullptr);
  std::_Exit(testing::Test::HasFailure() ? 1 : 0);
}

absl::StatusOr<std::unique_ptr<EnginePolicy>> Start(
    std::shared_ptr<const checkpoint::Weights> weights,
    std::vector<int> batch_sizes) {
  EnginePolicy::Options options;
  options.batch_sizes = std::move(batch_sizes);
  return EnginePolicy::Create(std::move(weights), std::move(options));
}

std::shared_ptr<const checkpoint::Weights> TinyWeights() {
  return reference::GoldenWeights("tiny_pi0", "model.safetensors");
}

// A second completion of a wave would end the process.
std::future<WaveResult> Submit(Policy& policy, int rows) {
  const WaveShape shape = {.rows = rows, .prompt_tokens = 12};
  auto slot = FilledSlot(policy, shape);
  if (!slot.ok()) std::abort();
  auto promise = std::make_shared<std::promise<WaveResult>>();
  policy.Submit({*std::move(slot), shape}, [promise](WaveResult result) {
    promise->set_value(std::move(result));
  });
  return promise->get_future();
}

void ExpectFaulted(std::future<WaveResult> wave, std::size_t rows) {
  ASSERT_EQ(wave.wait_for(std::chrono::seconds(5)), std::future_status::ready);
  WaveResult result = wave.get();
  ASSERT_EQ(result.row_status.size(), rows);
  for (std::size_t i = 0; i < rows; ++i) {
    EXPECT_EQ(result.row_status[i].code(), absl::StatusCode::kInternal);
    EXPECT_EQ(ReasonOf(result.row_status[i]), "DEVICE_FAULT");
    for (const float action : result.slot->row(i).actions) {
      ASSERT_TRUE(std::isnan(action)) << "row " << i;
    }
  }
}

void FailWaves() {
  auto started = Start(TinyWeights(), {1, 3});
  ASSERT_TRUE(started.ok()) << started.status();
  // Nothing can be given back to a device that is lost.
  EnginePolicy& policy = *started->release();
  for (const absl::Status& row : Submit(policy, 3).get().row_status) {
    ASSERT_TRUE(row.ok()) << row;
  }
  Blockade& blockade = *new Blockade;
  std::future<WaveResult> wave = Submit(policy, 3);
  std::future<WaveResult> next = Submit(policy, 1);
  EXPECT_TRUE(policy.healthy());
  blockade.Trap();
  const absl::Time trapped = absl::Now();
  ExpectFaulted(std::move(wave), 3);
  EXPECT_FALSE(policy.healthy());
  EXPECT_LT(absl::Now() - trapped, absl::Seconds(1));
  ExpectFaulted(std::move(next), 1);
  ExpectFaulted(Submit(policy, 3), 3);
  EXPECT_FALSE(policy.healthy());
}

TEST_F(EngineFaultTest, AFaultEndsItsWaveAndAllLaterOnesAndTellsWithinASecond) {
  EXPECT_EXIT(Report(FailWaves), ExitedWithCode(0), "");
}

void StartWithFewRows() {
  const Ballast ballast(1500 * kMebibyte);
  const auto refused = Start(TinyWeights(), {1, 64, 8192});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(refused.status().message());
  std::printf("%s\n", message.c_str());
  EXPECT_THAT(message, HasSubstr("batch_sizes: got 8192"));
  EXPECT_THAT(message, HasSubstr("GB are left"));
  EXPECT_THAT(message, HasSubstr("want at most 64"));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  const auto fits = Start(TinyWeights(), {1, 64});
  EXPECT_TRUE(fits.ok()) << fits.status();
}

TEST_F(EngineFaultTest, TooManyRowsAreRefusedWithALimitThatFits) {
  EXPECT_EXIT(Report(StartWithFewRows), ExitedWithCode(0), "");
}

void StartWithoutRoomForWeights() {
  const Ballast ballast(1000 * kMebibyte);
  auto weights = checkpoint::MakeSyntheticWeights(Pi0Variant(), 3);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const auto refused = Start(*std::move(weights), {1});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  const std::string message(refused.status().message());
  std::printf("%s\n", message.c_str());
  EXPECT_THAT(message, HasSubstr("paligemma_with_expert."));
  EXPECT_THAT(message, HasSubstr("does not fit into the device's memory"));
}

TEST_F(EngineFaultTest, WeightsWithoutRoomAreRefusedByTheirName) {
  EXPECT_EXIT(Report(StartWithoutRoomForWeights), ExitedWithCode(0), "");
}

}  // namespace
}  // namespace piserve::engine
