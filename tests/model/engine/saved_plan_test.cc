// SPDX-License-Identifier: Apache-2.0
// What a start does with the plan that an earlier one has kept.
#include <ATen/cuda/CUDAContextLight.h>
#include <cuda_runtime.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/engine/persistent_denoise.h"
#include "model/engine/plan.h"
#include "model/engine/policy.h"
#include "model/variant.h"
#include "tests/model/engine/bench_call.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::engine {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;

class SavedPlanTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
    path_ = testing::TempDir() + "/saved_plan_test.plan";
    std::remove(path_.c_str());
  }
  void TearDown() override { std::remove(path_.c_str()); }

  absl::StatusOr<std::unique_ptr<EnginePolicy>> Create(
      std::vector<int> batch_sizes,
      std::function<void(const std::string&)> progress) {
    EnginePolicy::Options options;
    options.batch_sizes = std::move(batch_sizes);
    options.plan_path = path_;
    options.progress = std::move(progress);
    return EnginePolicy::Create(
        reference::GoldenWeights("tiny_pi0", "model.safetensors"),
        std::move(options));
  }

  // What a start says. No power of two among the sizes.
  std::vector<std::string> Start(std::vector<int> batch_sizes = {3, 6}) {
    std::vector<std::string> said;
    const auto policy =
        Create(std::move(batch_sizes),
               [&](const std::string& line) { said.push_back(line); });
    EXPECT_TRUE(policy.ok()) << policy.status();
    return said;
  }

  void Spoil(const std::function<void(Plan&)>& change) {
    auto plan = ReadPlan(path_);
    ASSERT_TRUE(plan.ok()) << plan.status();
    change(*plan);
    ASSERT_TRUE(WritePlan(path_, *plan).ok());
  }

  std::string path_;
};

TEST_F(SavedPlanTest, IsUsedByTheNextStart) {
  EXPECT_THAT(Start(), Contains(HasSubstr("making a new plan")));
  EXPECT_THAT(Start(), AllOf(Contains(HasSubstr("capturing graphs")),
                             Each(Not(HasSubstr("making a new plan")))));
}

TEST_F(SavedPlanTest, HoldsTheAnswersOfTheLargestSizeAtLeast) {
  Start();
  const auto plan = ReadPlan(path_);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->hashes.size(), 1);
  EXPECT_TRUE(plan->hashes.contains(6));
}

TEST_F(SavedPlanTest, LeavesNoMemoryForTheFirstWavesToTake) {
  const auto free_bytes = [] {
    std::size_t free = 0, total = 0;
    EXPECT_EQ(cudaMemGetInfo(&free, &total), cudaSuccess);
    return free;
  };
  const std::vector<int> sizes = {3, 5, 6, 7, 9, 10, 11};
  Start(sizes);
  const auto policy = Create(sizes, nullptr);
  ASSERT_TRUE(policy.ok()) << policy.status();
  const std::size_t ready = free_bytes();
  for (const int rows : sizes) {
    for (int cameras = 1; cameras <= Variant::kCameras; ++cameras) {
      const WaveShape shape{
          .rows = rows, .cameras = cameras, .prompt_tokens = 1};
      auto slot = FilledSlot(**policy, shape);
      ASSERT_TRUE(slot.ok()) << slot.status();
      const WaveResult result = Call(**policy, *std::move(slot), shape);
      EXPECT_THAT(result.row_status, Each(absl::OkStatus()));
    }
  }
  EXPECT_EQ(free_bytes(), ready);
}

TEST_F(SavedPlanTest, IsMadeAnewWhenItDoesNotFit) {
  struct Case {
    std::function<void(Plan&)> change;
    const char* said;
  };
  const Case cases[] = {
      {[](Plan& plan) { plan.hashes.begin()->second ^= 1; },
       "answered differently"},
      {[](Plan& plan) { plan.key += "x"; }, "another one's"},
      {[](Plan& plan) { plan.costs.steps.erase(3); }, "no times for 3 rows"}};
  Start();
  for (const Case& c : cases) {
    Spoil(c.change);
    EXPECT_THAT(Start(), Contains(AllOf(HasSubstr("making a new plan"),
                                        HasSubstr(c.said))));
    EXPECT_THAT(Start(), Each(Not(HasSubstr("making a new plan"))));
  }
  EXPECT_THAT(Start({3}), Contains(HasSubstr("another one's")));
}

TEST(PersistentDenoiseTest, IsForDevicesThatHoldAllOfItsBlocks) {
  EXPECT_TRUE(PersistentDenoise::Supports(Pi0Variant(), 1, 132));
  EXPECT_FALSE(PersistentDenoise::Supports(Pi0Variant(), 1, 114));
}

}  // namespace
}  // namespace piserve::engine
