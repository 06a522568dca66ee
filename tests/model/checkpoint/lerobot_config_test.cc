// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/lerobot_config.h"

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using test::Refuses;

TEST(LerobotConfigTest, TheFieldsThatWeightsCannotTellAreRead) {
  const auto config = ParseLerobotConfig(
      R"({"type":"pi05","chunk_size":30,"max_action_dim":24,)"
      R"("max_state_dim":24,"tokenizer_max_length":180,)"
      R"("num_inference_steps":5,"dtype":"float32"})");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->has_value());
  EXPECT_TRUE((*config)->pi05);
  EXPECT_EQ((*config)->action_horizon, 30);
  EXPECT_EQ((*config)->action_dim, 24);
  EXPECT_EQ((*config)->max_token_len, 180);
  EXPECT_EQ((*config)->num_inference_steps, 5);
}

TEST(LerobotConfigTest, AbsentFieldsStayUnknown) {
  const auto config = ParseLerobotConfig(R"({"type":"pi0"})");
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_TRUE(config->has_value());
  EXPECT_FALSE((*config)->pi05);
  EXPECT_EQ((*config)->action_horizon, std::nullopt);
  EXPECT_EQ((*config)->num_inference_steps, std::nullopt);
}

TEST(LerobotConfigTest, OpenpisConfigIsNotLerobots) {
  const auto config =
      ReadLerobotConfig(piserve::test::GoldenPath("tiny_pi0/config.json"));
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_FALSE(config->has_value());
}

TEST(LerobotConfigTest, AnotherPolicyIsRefused) {
  EXPECT_THAT(ParseLerobotConfig(R"({"type":"act"})"),
              Refuses({"type: got \"act\"", "\"pi0\" or \"pi05\""}));
  EXPECT_THAT(ParseLerobotConfig(R"({"type":3})"), Refuses({"type: got 3"}));
}

TEST(LerobotConfigTest, ValuesThatAreNoSizesAreRefused) {
  for (const char* value : {"0", "-1", "1.5", "\"50\"", "null", "1048577"}) {
    EXPECT_THAT(
        ParseLerobotConfig(std::string(R"({"type":"pi0","chunk_size":)") +
                           value + "}"),
        Refuses({"chunk_size: got"}))
        << value;
  }
}

TEST(LerobotConfigTest, MoreStepsThanAServerTakesAreRefused) {
  EXPECT_THAT(
      ParseLerobotConfig(R"({"type":"pi0","num_inference_steps":1001})"),
      Refuses({"num_inference_steps: got"}));
}

TEST(LerobotConfigTest, WhatIsNoObjectIsRefused) {
  EXPECT_THAT(ParseLerobotConfig("3"), Refuses({"top level"}));
  EXPECT_THAT(ParseLerobotConfig(""), Refuses({"not JSON"}));
}

}  // namespace
}  // namespace piserve::checkpoint
