// SPDX-License-Identifier: Apache-2.0
#include "model/reference/policy.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <future>
#include <limits>
#include <utility>
#include <vector>

#include "model/checkpoint/synthetic_weights.h"
#include "model/error.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::reference {
namespace {

std::unique_ptr<ReferencePolicy> MakePolicy(const std::string& model,
                                            Precision precision) {
  auto policy = ReferencePolicy::Create(
      GoldenWeights(model, precision),
      {.precision = precision, .threads = 1, .slots_in_flight = 4});
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

// Fills a slot's row with row `from` of a golden batch.
void Fill(const SlotRow& row, const Batch& batch, int from) {
  const Batch one = batch.Row(from);
  std::copy_n(one.pixels.const_data_ptr<std::uint8_t>(), row.pixels.size(),
              row.pixels.begin());
  const at::Tensor mask = one.camera_mask.to(at::kByte);
  std::copy_n(mask.const_data_ptr<std::uint8_t>(), 3, row.camera_mask.begin());
  *row.token_count = one.token_mask.sum().item<int>();
  const at::Tensor tokens = one.tokens.to(at::kInt);
  std::copy_n(tokens.const_data_ptr<std::int32_t>(), row.tokens.size(),
              row.tokens.begin());
  const at::Tensor state = one.state.to(at::kFloat);
  std::copy_n(state.const_data_ptr<float>(), row.state.size(),
              row.state.begin());
  std::copy_n(one.noise.const_data_ptr<float>(), row.noise.size(),
              row.noise.begin());
}

// Runs rows of a golden batch as one wave.
WaveResult RunWave(Policy& policy, const Batch& batch,
                   const std::vector<int>& rows) {
  auto slot = policy.AcquireSlot(rows.size());
  EXPECT_TRUE(slot.ok()) << slot.status();
  for (int i = 0; i < rows.size(); ++i) {
    Fill((*slot)->row(i), batch, rows[i]);
  }
  std::promise<WaveResult> promise;
  policy.Submit(
      {*std::move(slot), {.rows = static_cast<int>(rows.size())}},
      [&promise](WaveResult result) { promise.set_value(std::move(result)); });
  return promise.get_future().get();
}

std::vector<float> Actions(const WaveResult& result, int row) {
  const std::span<const float> actions = result.slot->row(row).actions;
  return {actions.begin(), actions.end()};
}

TEST(ReferencePolicyTest, ActionsAreOpenpis) {
  for (const char* model : {"tiny_pi0", "tiny_pi05"}) {
    const auto policy = MakePolicy(model, Precision::kFloat32);
    const GoldenCase golden(model, "d", Precision::kFloat32);
    const WaveResult result = RunWave(*policy, golden.batch, {0, 1, 2});
    const at::Tensor want = golden.Get("actions");
    const bool pi05 = policy->capabilities().variant.pi05;
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(result.row_status[i].ok()) << result.row_status[i];
      std::vector<float> actions = Actions(result, i);
      const Distance distance = DistanceOf(
          want[i], at::from_blob(actions.data(), want[i].sizes(), at::kFloat));
      EXPECT_LE(distance.max, pi05 ? 5e-6 : 8e-6);
      EXPECT_LE(distance.mean, pi05 ? 1e-6 : 1.5e-6);
    }
  }
}

TEST(ReferencePolicyTest, RowHasTheSameBitsAloneAndInAnyCompany) {
  for (Precision precision : {Precision::kFloat32, Precision::kBFloat16}) {
    const auto policy = MakePolicy("tiny_pi0", precision);
    const Batch batch = GoldenInputs("tiny_pi0", "d");
    const WaveResult together = RunWave(*policy, batch, {0, 1, 2, 1});
    const WaveResult turned = RunWave(*policy, batch, {2, 0});
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(Actions(RunWave(*policy, batch, {i}), 0), Actions(together, i));
    }
    EXPECT_EQ(Actions(together, 3), Actions(together, 1));
    EXPECT_EQ(Actions(turned, 0), Actions(together, 2));
    EXPECT_EQ(Actions(turned, 1), Actions(together, 0));
  }
}

TEST(ReferencePolicyTest, NonFiniteNoiseFailsItsRowAlone) {
  const auto policy = MakePolicy("tiny_pi05", Precision::kBFloat16);
  const Batch batch = GoldenInputs("tiny_pi05", "a");
  const std::vector<float> want = Actions(RunWave(*policy, batch, {0}), 0);
  auto slot = *policy->AcquireSlot(2);
  Fill(slot->row(0), batch, 0);
  Fill(slot->row(1), batch, 0);
  slot->row(0).noise[3] = std::numeric_limits<float>::quiet_NaN();
  std::promise<WaveResult> promise;
  policy->Submit({std::move(slot), {.rows = 2}}, [&](WaveResult result) {
    promise.set_value(std::move(result));
  });
  const WaveResult result = promise.get_future().get();
  EXPECT_EQ(result.row_status[0].code(), absl::StatusCode::kInternal);
  EXPECT_EQ(ReasonOf(result.row_status[0]), "NON_FINITE_OUTPUT");
  ASSERT_TRUE(result.row_status[1].ok());
  EXPECT_EQ(Actions(result, 1), want);
  EXPECT_TRUE(policy->healthy());
}

TEST(ReferencePolicyTest, RowOfOneTokenAndNoCamerasHasActions) {
  const auto policy = MakePolicy("tiny_pi0", Precision::kFloat32);
  auto slot = *policy->AcquireSlot(1);
  const SlotRow row = slot->row(0);
  Fill(row, GoldenInputs("tiny_pi0", "a"), 0);
  std::fill(row.camera_mask.begin(), row.camera_mask.end(), 0);
  *row.token_count = 1;
  std::promise<WaveResult> promise;
  policy->Submit({std::move(slot), {.rows = 1}}, [&](WaveResult result) {
    promise.set_value(std::move(result));
  });
  EXPECT_TRUE(promise.get_future().get().row_status[0].ok());
}

TEST(ReferencePolicyTest, PredictsMoreForMoreRowsCamerasAndSteps) {
  const auto policy = MakePolicy("tiny_pi05", Precision::kFloat32);
  const WaveShape shape{.rows = 2, .cameras = 2, .prompt_tokens = 20};
  const auto with = [&](int WaveShape::*field, int value) {
    WaveShape changed = shape;
    changed.*field = value;
    return policy->PredictDuration(changed);
  };
  const absl::Duration base = policy->PredictDuration(shape);
  EXPECT_GT(base, absl::ZeroDuration());
  EXPECT_LT(base, absl::Seconds(60));
  EXPECT_EQ(with(&WaveShape::rows, 4), 2 * base);
  EXPECT_GT(with(&WaveShape::cameras, 3), base);
  EXPECT_GT(with(&WaveShape::steps, 20), base);
}

TEST(ReferencePolicyTest, ServesAnyVariantThatMayBe) {
  // Awkward sizes: heads of 24, two KV heads, seven patches a side.
  Variant variant;
  variant.vision = {
      .width = 30, .depth = 2, .heads = 3, .mlp = 50, .patch = 8, .image = 56};
  variant.vlm = {.width = 40,
                 .depth = 2,
                 .mlp = 70,
                 .heads = 6,
                 .kv_heads = 2,
                 .head_dim = 24};
  variant.expert = {.width = 36,
                    .depth = 2,
                    .mlp = 44,
                    .heads = 6,
                    .kv_heads = 2,
                    .head_dim = 24};
  variant.vocab = 97;
  variant.action_dim = 5;
  variant.action_horizon = 3;
  variant.max_token_len = 11;
  for (bool pi05 : {false, true}) {
    variant.pi05 = pi05;
    auto weights = checkpoint::MakeSyntheticWeights(variant, 5);
    ASSERT_TRUE(weights.ok()) << weights.status();
    const auto policy = ReferencePolicy::Create(
        std::shared_ptr<const checkpoint::Weights>(*std::move(weights)),
        {.precision = Precision::kFloat32, .threads = 1});
    EXPECT_TRUE(policy.ok()) << policy.status();
  }
}

TEST(ReferencePolicyTest, RefusesOptionsThatMakeNoSense) {
  const auto weights = GoldenWeights("tiny_pi0", Precision::kBFloat16);
  const auto code = [&](const ReferencePolicy::Options& options) {
    return ReferencePolicy::Create(weights, options).status().code();
  };
  EXPECT_EQ(code({.batch_sizes = {}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.batch_sizes = {2, 2}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.batch_sizes = {0}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.step_counts = {}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.slots_in_flight = 0}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.threads = -1}), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace piserve::reference
