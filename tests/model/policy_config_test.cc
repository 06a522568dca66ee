// SPDX-License-Identifier: Apache-2.0
#include "model/policy_config.h"

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const PolicyConfig& Config(std::string_view name) {
  const PolicyConfig* config = FindPolicyConfig(name);
  if (config == nullptr) ADD_FAILURE() << "no " << name;
  return config == nullptr ? PolicyConfigs()[0] : *config;
}

TEST(PolicyConfigTest, EveryServingConfigurationOfOpenpiIsThereOnce) {
  std::set<std::string> names;
  for (const PolicyConfig& config : PolicyConfigs()) {
    EXPECT_TRUE(names.insert(config.name).second) << config.name;
  }
  EXPECT_THAT(
      names, ElementsAre("pi05_aloha", "pi05_aloha_pen_uncap", "pi05_droid",
                         "pi05_droid_finetune", "pi05_droid_jointpos_polaris",
                         "pi05_full_droid_finetune", "pi05_libero", "pi0_aloha",
                         "pi0_aloha_pen_uncap", "pi0_aloha_sim",
                         "pi0_aloha_towel", "pi0_aloha_tupperware", "pi0_droid",
                         "pi0_droid_jointpos_100k_polaris",
                         "pi0_droid_jointpos_polaris", "pi0_libero"));
}

TEST(PolicyConfigTest, AnUnknownNameIsNull) {
  EXPECT_EQ(FindPolicyConfig("debug"), nullptr);
  EXPECT_EQ(FindPolicyConfig(""), nullptr);
}

TEST(PolicyConfigTest, NormalisationFollowsTheKindOfModel) {
  for (const PolicyConfig& config : PolicyConfigs()) {
    EXPECT_EQ(config.pi05, config.name.starts_with("pi05_")) << config.name;
    EXPECT_EQ(config.norm == NormMode::kQuantile, config.pi05) << config.name;
  }
}

// docs/pi0.md 1.4, column by column where rows differ.
TEST(PolicyConfigTest, HorizonAndPromptLimitAreOpenpis) {
  struct Row {
    const char* name;
    int horizon;
    int limit;
  };
  for (const Row& row :
       {Row{"pi0_aloha", 50, 48}, Row{"pi05_aloha", 50, 200},
        Row{"pi0_aloha_towel", 50, 48}, Row{"pi0_aloha_tupperware", 50, 48},
        Row{"pi0_aloha_pen_uncap", 50, 48},
        Row{"pi05_aloha_pen_uncap", 50, 200}, Row{"pi0_aloha_sim", 50, 48},
        Row{"pi0_droid", 10, 48}, Row{"pi05_droid", 15, 200},
        Row{"pi05_droid_finetune", 16, 200},
        Row{"pi05_full_droid_finetune", 16, 200},
        Row{"pi05_droid_jointpos_polaris", 15, 200},
        Row{"pi0_droid_jointpos_polaris", 10, 100},
        Row{"pi0_droid_jointpos_100k_polaris", 10, 100},
        Row{"pi0_libero", 50, 48}, Row{"pi05_libero", 10, 200}}) {
    EXPECT_EQ(Config(row.name).action_horizon, row.horizon) << row.name;
    EXPECT_EQ(Config(row.name).max_token_len, row.limit) << row.name;
  }
}

TEST(PolicyConfigTest, AbsoluteActionsAreOpenpis) {
  EXPECT_THAT(Config("pi0_aloha").absolute_actions, ElementsAre(6, -1, 6, -1));
  EXPECT_THAT(Config("pi0_aloha_sim").absolute_actions, IsEmpty());
  EXPECT_THAT(Config("pi0_libero").absolute_actions, ElementsAre(6, -1));
  EXPECT_THAT(Config("pi05_libero").absolute_actions, IsEmpty());
  EXPECT_THAT(Config("pi05_droid").absolute_actions, IsEmpty());
  EXPECT_THAT(Config("pi05_droid_finetune").absolute_actions, IsEmpty());
  EXPECT_THAT(Config("pi05_full_droid_finetune").absolute_actions,
              ElementsAre(7, -1));
  EXPECT_THAT(Config("pi0_droid_jointpos_polaris").absolute_actions,
              ElementsAre(7, -1));
}

TEST(PolicyConfigTest, Pi05LiberoNeverSeesTheState) {
  for (const PolicyConfig& config : PolicyConfigs()) {
    EXPECT_EQ(config.discrete_state_input,
              config.pi05 && config.name != "pi05_libero")
        << config.name;
  }
}

TEST(PolicyConfigTest, AlohasPromptsAndResetPosesAreOpenpis) {
  EXPECT_EQ(Config("pi0_aloha").default_prompt, std::nullopt);
  EXPECT_EQ(Config("pi0_aloha_towel").default_prompt, "fold the towel");
  EXPECT_EQ(Config("pi0_aloha_tupperware").default_prompt,
            "open the tupperware and put the food on the plate");
  EXPECT_EQ(Config("pi05_aloha_pen_uncap").default_prompt, "uncap the pen");
  EXPECT_EQ(Config("pi0_aloha_sim").default_prompt, "Transfer cube");
  EXPECT_THAT(Config("pi0_aloha_towel").reset_pose,
              ElementsAre(0, -1.5, 1.5, 0, 0, 0));
  EXPECT_THAT(Config("pi0_aloha_pen_uncap").reset_pose, IsEmpty());
  EXPECT_THAT(Config("pi0_aloha_sim").reset_pose, IsEmpty());
}

TEST(PolicyConfigTest, RobotsHaveTheirAssetsAndRates) {
  for (const PolicyConfig& config : PolicyConfigs()) {
    switch (config.robot) {
      case Robot::kAloha:
        EXPECT_TRUE(config.adapt_to_pi);
        EXPECT_EQ(config.control_rate_hz, 50);
        EXPECT_EQ(config.asset_id, config.name == "pi0_aloha_sim"
                                       ? "lerobot/aloha_sim_transfer_cube_human"
                                       : "trossen");
        break;
      case Robot::kDroid:
        EXPECT_FALSE(config.adapt_to_pi);
        EXPECT_EQ(config.control_rate_hz, 15);
        EXPECT_EQ(config.asset_id, "droid");
        break;
      case Robot::kLibero:
        EXPECT_FALSE(config.adapt_to_pi);
        EXPECT_EQ(config.control_rate_hz, 20);
        EXPECT_EQ(config.asset_id, "physical-intelligence/libero");
        break;
    }
  }
}

}  // namespace
}  // namespace piserve
