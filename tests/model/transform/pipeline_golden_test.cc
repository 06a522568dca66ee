// SPDX-License-Identifier: Apache-2.0
// Raw observations to model inputs, and model actions to replies, as openpi's
// create_trained_policy and Policy.infer did them.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "model/transform/pipeline.h"
#include "tests/support/close.h"
#include "tests/support/golden_policy.h"
#include "tests/support/synthetic_inputs.h"

namespace piserve::transform {
namespace {

class PipelineGolden : public testing::TestWithParam<const char*> {};

TEST_P(PipelineGolden, ModelInputsEqualOpenpis) {
  const test::GoldenPolicy golden(GetParam());
  const auto pipeline = golden.MakePipeline();
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  ASSERT_EQ(golden.size(), 3);
  const std::size_t image_bytes = std::size_t{3} * 224 * 224;
  for (int i = 0; i < golden.size(); ++i) {
    SCOPED_TRACE(i);
    const test::GoldenObservation observation = golden.observation(i);
    const auto input = (*pipeline)->Prepare(observation.view());
    ASSERT_TRUE(input.ok()) << input.status();
    EXPECT_TRUE(test::Close(input->state, golden.model_state(i)));
    EXPECT_EQ(input->tokens, golden.tokens(i));
    for (int slot = 0; slot < Variant::kCameras; ++slot) {
      const std::string name(kCameraSlots[slot]);
      EXPECT_EQ(input->camera_mask[slot], golden.camera_mask(i, name)) << name;
      const auto begin = input->pixels.begin() + slot * image_bytes;
      EXPECT_EQ(test::Fnv1a64Hex({begin, begin + image_bytes}),
                golden.model_image_fnv1a64(i, name))
          << name;
    }
  }
}

TEST_P(PipelineGolden, RepliesEqualOpenpis) {
  const test::GoldenPolicy golden(GetParam());
  const auto pipeline = golden.MakePipeline();
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  for (int i = 0; i < golden.size(); ++i) {
    const test::GoldenObservation observation = golden.observation(i);
    const auto input = (*pipeline)->Prepare(observation.view());
    ASSERT_TRUE(input.ok()) << input.status();
    for (const char* precision : {"fp32", "bf16"}) {
      const auto actions =
          (*pipeline)->Finish(golden.model_actions(i, precision), *input);
      ASSERT_TRUE(actions.ok()) << actions.status();
      EXPECT_TRUE(test::Close(*actions, golden.actions(i, precision)))
          << i << " " << precision;
    }
  }
}

TEST_P(PipelineGolden, CostsAreUpperBounds) {
  const test::GoldenPolicy golden(GetParam());
  const auto pipeline = golden.MakePipeline();
  ASSERT_TRUE(pipeline.ok()) << pipeline.status();
  for (int i = 0; i < golden.size(); ++i) {
    const test::GoldenObservation observation = golden.observation(i);
    const InputCost cost = (*pipeline)->EstimateCost(observation.view());
    const auto input = (*pipeline)->Prepare(observation.view());
    ASSERT_TRUE(input.ok()) << input.status();
    EXPECT_EQ(cost.cameras, input->cameras());
    EXPECT_GE(cost.prompt_tokens, input->tokens.size());
    EXPECT_LE(cost.prompt_tokens, (*pipeline)->max_prompt_tokens());
    EXPECT_GE(cost.bytes, input->pixels.size() + 4 * input->tokens.size() +
                              8 * input->state.size() +
                              8 * input->robot_state.size());
  }
}

INSTANTIATE_TEST_SUITE_P(Robots, PipelineGolden,
                         testing::Values("pi0_libero", "pi05_libero",
                                         "pi0_aloha_towel", "pi05_droid"));

}  // namespace
}  // namespace piserve::transform
