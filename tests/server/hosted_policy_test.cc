// SPDX-License-Identifier: Apache-2.0
#include "server/hosted_policy.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/policy_info.h"

namespace piserve::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

PolicyEntry Tiny() {
  const std::string golden = PISERVE_SOURCE_DIR "/tests/golden";
  PolicyEntry entry;
  entry.name = "aloha";
  entry.policy_config = "pi0_aloha_towel";
  entry.weights = CheckpointWeights{golden + "/tiny_pi0"};
  entry.tokenizer = golden + "/tokenizer/tiny.model";
  entry.precision = Precision::kFloat32;
  entry.batch_sizes = {1};
  entry.step_counts = {1};
  return entry;
}

std::string Refusal(const PolicyEntry& entry) {
  const absl::StatusOr<HostedPolicy> host = LoadPolicy(entry);
  EXPECT_FALSE(host.ok());
  const std::string message(host.status().message());
  EXPECT_THAT(message, StartsWith("policy aloha: "));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  return message;
}

TEST(HostedPolicyTest, SaysWhatARobotMustKnow) {
  const absl::StatusOr<HostedPolicy> host = LoadPolicy(Tiny());
  ASSERT_TRUE(host.ok()) << host.status();
  const v1::PolicyInfo info = InfoOf(*host);
  EXPECT_EQ(info.policy_config(), "pi0_aloha_towel");
  EXPECT_EQ(info.precision(), "float32");
  EXPECT_EQ(info.backend(), "reference");
  EXPECT_EQ(info.default_prompt(), "fold the towel");
  EXPECT_EQ(info.action_horizon(), 10u) << "variant.json wins over the row";
  EXPECT_THAT(info.noise_shape(), ElementsAre(10, 32));
  EXPECT_THAT(info.step_counts(), ElementsAre(1));
  EXPECT_EQ(info.cameras_size(), 4);
  const auto& pose = info.metadata().fields().at("reset_pose").list_value();
  ASSERT_EQ(pose.values_size(), 6);
  EXPECT_EQ(pose.values(1).number_value(), -1.5);
}

TEST(HostedPolicyTest, OverridesWin) {
  PolicyEntry entry = Tiny();
  entry.overrides.default_prompt = "wave";
  entry.overrides.action_horizon = 4;
  entry.overrides.control_rate_hz = 50;
  entry.overrides.reset_pose = std::vector<double>();
  const absl::StatusOr<HostedPolicy> host = LoadPolicy(entry);
  ASSERT_TRUE(host.ok()) << host.status();
  const v1::PolicyInfo info = InfoOf(*host);
  EXPECT_EQ(info.default_prompt(), "wave");
  EXPECT_EQ(info.action_horizon(), 4u);
  EXPECT_EQ(info.control_rate_hz(), 50);
  EXPECT_EQ(info.metadata().fields().count("reset_pose"), 0u);
}

TEST(HostedPolicyTest, DigestTellsWhatDecidesAnAnswer) {
  const std::string digest = LoadPolicy(Tiny())->model_digest;
  EXPECT_EQ(digest.size(), 64u);
  EXPECT_EQ(LoadPolicy(Tiny())->model_digest, digest);
  PolicyEntry renamed = Tiny();
  renamed.name = "other";
  EXPECT_EQ(LoadPolicy(renamed)->model_digest, digest);
  PolicyEntry precise = Tiny();
  precise.precision = Precision::kBFloat16;
  EXPECT_NE(LoadPolicy(precise)->model_digest, digest);
  PolicyEntry prompted = Tiny();
  prompted.overrides.default_prompt = "wave";
  EXPECT_NE(LoadPolicy(prompted)->model_digest, digest);
  PolicyEntry other = Tiny();
  other.weights = SyntheticWeights{9};
  other.variant_json = PISERVE_SOURCE_DIR "/tests/golden/tiny_pi0/variant.json";
  EXPECT_NE(LoadPolicy(other)->model_digest, digest);
}

TEST(HostedPolicyTest, RefusesInOneLineThatNamesThePolicy) {
  PolicyEntry unknown = Tiny();
  unknown.policy_config = "pi9";
  EXPECT_THAT(Refusal(unknown), HasSubstr("pi05_libero"));
  PolicyEntry engine = Tiny();
  engine.backend = Backend::kEngine;
  EXPECT_THAT(Refusal(engine), HasSubstr("ENGINE"));
  PolicyEntry tokenizer = Tiny();
  tokenizer.tokenizer = "/nowhere.model";
  EXPECT_THAT(Refusal(tokenizer), HasSubstr("/nowhere.model"));
  PolicyEntry folder = Tiny();
  folder.weights = CheckpointWeights{"/nowhere"};
  EXPECT_THAT(Refusal(folder), HasSubstr("/nowhere"));
  PolicyEntry kind = Tiny();
  kind.policy_config = "pi05_aloha";
  EXPECT_THAT(Refusal(kind), HasSubstr("pi05"));
}

}  // namespace
}  // namespace piserve::server
