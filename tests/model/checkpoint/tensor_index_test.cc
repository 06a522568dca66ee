// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/tensor_index.h"

#include "gtest/gtest.h"
#include "model/checkpoint/tensor_spec.h"
#include "tests/model/checkpoint/files.h"

namespace piserve::checkpoint {
namespace {

using test::Entry;
using test::FileOf;
using test::ParseCopy;
using test::Refuses;
using test::Zeros;

TEST(CanonicalNameTest, OpenpisNamesStayAsTheyAre) {
  for (const TensorSpec& spec : TensorSpecs(Pi05Variant())) {
    EXPECT_EQ(CanonicalName(spec.name), spec.name);
  }
}

TEST(CanonicalNameTest, OneLeadingModelIsStripped) {
  EXPECT_EQ(CanonicalName("model.state_proj.bias"), "state_proj.bias");
  EXPECT_EQ(CanonicalName("model.model.state_proj.bias"),
            "model.state_proj.bias");
}

TEST(CanonicalNameTest, OldNestingIsMapped) {
  const std::string p = "paligemma_with_expert.paligemma.";
  EXPECT_EQ(CanonicalName("model." + p +
                          "language_model.model.layers.3.mlp.up_proj.weight"),
            p + "model.language_model.layers.3.mlp.up_proj.weight");
  EXPECT_EQ(CanonicalName(p + "language_model.lm_head.weight"),
            p + "lm_head.weight");
  EXPECT_EQ(CanonicalName(p + "vision_tower.vision_model.post_layernorm.bias"),
            p + "model.vision_tower.vision_model.post_layernorm.bias");
  EXPECT_EQ(CanonicalName(p + "multi_modal_projector.linear.bias"),
            p + "model.multi_modal_projector.linear.bias");
}

TEST(CanonicalNameTest, TheExpertHasNoOldNesting) {
  const std::string name =
      "paligemma_with_expert.gemma_expert.model.layers.0.mlp.up_proj.weight";
  EXPECT_EQ(CanonicalName("model." + name), name);
}

TEST(CanonicalNameTest, DeadAndNormalisationTensorsAreIgnored) {
  for (const char* name :
       {"paligemma_with_expert.gemma_expert.lm_head.weight",
        "model.paligemma_with_expert.gemma_expert.lm_head.weight",
        "model.proprio_history_proj.weight",
        "normalize_inputs.buffer_observation_state.mean",
        "normalize_targets.buffer_action.std",
        "unnormalize_outputs.buffer_action.mean"}) {
    EXPECT_EQ(CanonicalName(name), std::nullopt) << name;
  }
}

TEST(IndexTensorsTest, ATensorUnderTwoNamesIsRefused) {
  const auto file = ParseCopy(
      FileOf({Zeros("state_proj.bias", StoredDType::kBF16, {2}),
              Zeros("model.state_proj.bias", StoredDType::kBF16, {2})}));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT(IndexTensors(*file),
              Refuses({"\"model.state_proj.bias\"", "\"state_proj.bias\""}));
}

TEST(IndexTensorsTest, EmbedTokensWinsOverTheTiedHead) {
  const std::vector<Entry> both = {
      Zeros(std::string(kTokenEmbedding), StoredDType::kBF16, {2, 1}),
      Zeros(std::string(kEmbedTokens), StoredDType::kF32, {2, 1})};
  const auto file = ParseCopy(FileOf(both));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto index = IndexTensors(*file);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->size(), 1);
  EXPECT_EQ(index->at(std::string(kTokenEmbedding))->name, kEmbedTokens);
}

TEST(IndexTensorsTest, EitherNameAloneIsTheEmbedding) {
  for (const std::string_view name : {kTokenEmbedding, kEmbedTokens}) {
    const auto file = ParseCopy(FileOf(
        {Zeros("model." + std::string(name), StoredDType::kBF16, {2, 1})}));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto index = IndexTensors(*file);
    ASSERT_TRUE(index.ok()) << index.status();
    EXPECT_TRUE(index->contains(kTokenEmbedding)) << name;
  }
}

}  // namespace
}  // namespace piserve::checkpoint
