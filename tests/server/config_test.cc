// SPDX-License-Identifier: Apache-2.0
#include "server/config.h"

#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/address.h"

namespace piserve::server {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kPolicy[] = R"(policies {
  name: "libero" policy_config: "pi0_libero" checkpoint: "weights"
  tokenizer: "../t.model" precision: FLOAT32 })";

absl::StatusOr<Config> Parse(const std::string& more) {
  return ParseConfig(absl::string_view(kPolicy + more), "/etc/piserve");
}

// The one line that a refused configuration prints.
std::string Refusal(const std::string& more) {
  const absl::StatusOr<Config> config = Parse(more);
  EXPECT_FALSE(config.ok()) << more;
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  const std::string message(config.status().message());
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  return message;
}

TEST(ConfigTest, DefaultsAreThoseOfTheContract) {
  const Config config = *Parse("");
  EXPECT_EQ(config.listeners.grpc, "127.0.0.1:50051");
  EXPECT_EQ(config.listeners.probe, "127.0.0.1:50052");
  EXPECT_EQ(config.listeners.admin, "127.0.0.1:50053");
  EXPECT_EQ(config.listeners.http, "127.0.0.1:9464");
  EXPECT_EQ(config.listeners.websocket, "");
  EXPECT_EQ(config.limits.rows, 128);
  EXPECT_EQ(config.limits.bytes, std::size_t{512} << 20);
  EXPECT_EQ(config.limits.predicted, absl::Milliseconds(250));
  EXPECT_EQ(config.limits.default_deadline, absl::Seconds(5));
  EXPECT_EQ(config.limits.max_deadline, absl::Seconds(30));
  EXPECT_EQ(config.limits.receive_bytes, 8 << 20);
  EXPECT_EQ(config.drain_grace, absl::Seconds(25));
  EXPECT_GE(config.decode_workers, 1);
  EXPECT_TRUE(config.policies[0].step_counts.empty());
  EXPECT_EQ(config.policies[0].batch_sizes.back(), 64);
}

TEST(ConfigTest, PathsAreRelativeToTheFile) {
  const PolicyEntry policy = Parse("")->policies[0];
  EXPECT_EQ(std::get<CheckpointWeights>(policy.weights).folder,
            "/etc/piserve/weights");
  EXPECT_EQ(policy.tokenizer, "/etc/t.model");
}

TEST(ConfigTest, UnknownFieldIsRefusedWithItsPlace) {
  EXPECT_THAT(Refusal("\ncolour: 1"), HasSubstr("line 4"));
  EXPECT_THAT(Refusal(" limits { unlimited: true }"), HasSubstr("unlimited"));
}

TEST(ConfigTest, AnUnknownNameIsRefusedWithThoseThatThereAre) {
  EXPECT_THAT(Refusal("policies { precision: BF16 }"),
              HasSubstr("\"precision\". Want BFLOAT16 or FLOAT32"));
  EXPECT_THAT(Refusal("policies { overrides { robot: UR5 } }"),
              HasSubstr("\"robot\". Want LIBERO, DROID or ALOHA"));
}

TEST(ConfigTest, ValueOutOfRangeIsRefusedWithItsField) {
  EXPECT_THAT(Refusal("limits { rows: 0 }"), HasSubstr("limits.rows"));
  EXPECT_THAT(Refusal("limits { bytes: 1 }"), HasSubstr("limits.bytes"));
  EXPECT_THAT(Refusal("limits { predicted_ms: 0 }"),
              HasSubstr("limits.predicted_ms"));
  EXPECT_THAT(Refusal("limits { default_deadline_ms: 40000 }"),
              HasSubstr("max_deadline_ms"));
  EXPECT_THAT(Refusal("watchdog { factor: nan }"), HasSubstr("factor"));
  EXPECT_THAT(Refusal("decode_workers: 0"), HasSubstr("decode_workers"));
}

TEST(ConfigTest, AValueThatNoIntHoldsIsToldAsItStands) {
  const auto expect = [](absl::string_view before, const std::string& field,
                         absl::string_view after, absl::string_view within) {
    EXPECT_THAT(
        Refusal(absl::StrCat(before, field, ": 4294967295", after)),
        HasSubstr(absl::StrCat(within, field, ": got 4294967295, want ")));
  };
  for (const char* field : {"rows", "rows_per_client", "receive_bytes",
                            "websocket_connections", "websocket_in_flight"}) {
    expect("limits { ", field, " }", "limits.");
  }
  expect("", "decode_workers", "", "");
  const std::string policy =
      "policies { name: 'b' policy_config: 'x' synthetic {} tokenizer: 't' "
      "precision: BFLOAT16 ";
  for (const char* field : {"batch_sizes", "step_counts", "threads"}) {
    expect(policy, field, " }", "policies[1].");
  }
  for (const char* field : {"action_horizon", "max_token_len"}) {
    expect(policy + "overrides { ", field, " } }", "policies[1].overrides.");
  }
}

TEST(ConfigTest, TheQueueHasRoomForTheLargestRequest) {
  EXPECT_THAT(
      Refusal("limits { bytes: 8388608 }"),
      AllOf(HasSubstr("limits.bytes: got 8388608, want at least 8912896"),
            HasSubstr("limits.receive_bytes")));
  EXPECT_THAT(Refusal("limits { receive_bytes: 268435456 bytes: 268435456 }"),
              HasSubstr("limits.bytes"));
  EXPECT_TRUE(Parse("limits { bytes: 8912896 }").ok());
  EXPECT_TRUE(Parse("limits { bytes: 2097152 receive_bytes: 1048576 }").ok());
}

TEST(ConfigTest, PolicyMustBeComplete) {
  const auto refusal = [](const std::string& text) {
    return std::string(ParseConfig(text, "").status().message());
  };
  EXPECT_THAT(refusal(""), HasSubstr("policies: got none"));
  EXPECT_THAT(refusal("policies { policy_config: 'x' }"), HasSubstr("name"));
  EXPECT_THAT(refusal("policies { name: 'a' policy_config: 'x' }"),
              HasSubstr("checkpoint or synthetic"));
  EXPECT_THAT(refusal("policies { name: 'a' policy_config: 'x' "
                      "checkpoint: 'c' precision: FLOAT32 }"),
              HasSubstr("tokenizer"));
  EXPECT_THAT(refusal("policies { name: 'a' policy_config: 'x' "
                      "checkpoint: 'c' tokenizer: 't' }"),
              HasSubstr("BFLOAT16 or FLOAT32"));
  EXPECT_THAT(Refusal(kPolicy), HasSubstr("policies[1].name: got libero twice, "
                                          "want each name once"));
}

TEST(ConfigTest, NameCannotCarryMarkup) {
  const auto named = [](const std::string& name) {
    return Refusal("policies { name: '" + name +
                   "' policy_config: 'x' checkpoint: 'c' tokenizer: 't' "
                   "precision: FLOAT32 }");
  };
  const std::string field = "policies[1].name: got ";
  EXPECT_THAT(named("<b>"),
              HasSubstr(field + "\"<b>\", 3 bytes, want 1 to 64"));
  EXPECT_THAT(named("li bero"), HasSubstr(field + "\"li bero\", 7 bytes"));
  EXPECT_THAT(named("a\\nb"), HasSubstr(field + "\"a\\nb\", 3 bytes"));
  const std::string most(64, 'a');
  EXPECT_THAT(named(most + "a"),
              HasSubstr(field + "\"" + most + "\", 65 bytes"));
}

TEST(ConfigTest, SizesAscendAndStepsAreDistinct) {
  const std::string head =
      "policies { name: 'b' policy_config: 'x' synthetic { seed: 3 } "
      "tokenizer: 't' precision: BFLOAT16 ";
  EXPECT_THAT(Refusal(head + "batch_sizes: [4, 2] }"), HasSubstr("ascending"));
  EXPECT_THAT(Refusal(head + "step_counts: [10, 10] }"), HasSubstr("twice"));
  const Config config = *Parse(head + "step_counts: [10, 3] }");
  EXPECT_THAT(config.policies[1].step_counts, ElementsAre(10, 3));
  EXPECT_EQ(std::get<SyntheticWeights>(config.policies[1].weights).seed, 3);
}

TEST(ConfigTest, TheEngineHasGraphsForEverySizeAndAPlan) {
  const std::string head =
      "policies { name: 'b' policy_config: 'x' synthetic {} tokenizer: 't' ";
  const std::string engine = head + "precision: BFLOAT16 backend: ENGINE ";
  const PolicyEntry policy =
      Parse(engine + "plan: 'b.plan' rope_table: EXACT }")->policies[1];
  EXPECT_EQ(policy.batch_sizes.size(), 64u);
  EXPECT_EQ(policy.plan, "/etc/piserve/b.plan");
  EXPECT_EQ(policy.rope_table, RopeTable::kExact);
  EXPECT_THAT(Parse(engine + "batch_sizes: [1, 8] }")->policies[1].batch_sizes,
              ElementsAre(1, 8));
  EXPECT_THAT(Refusal(head + "precision: FLOAT32 backend: ENGINE }"),
              HasSubstr("policies[1].precision"));
  EXPECT_THAT(Refusal(head + "precision: BFLOAT16 plan: 'b.plan' }"),
              HasSubstr("policies[1].plan"));
  EXPECT_THAT(Refusal(head + "precision: BFLOAT16 rope_table: EXACT }"),
              HasSubstr("policies[1].rope_table"));
}

TEST(ConfigTest, OverridesAreSetOnlyWhereGiven) {
  EXPECT_FALSE(Parse("")->policies[0].overrides.default_prompt.has_value());
  const std::string text =
      "policies { name: 'b' policy_config: 'x' synthetic {} tokenizer: 't' "
      "precision: BFLOAT16 overrides { default_prompt: '' norm: QUANTILE "
      "robot: ALOHA absolute_actions {} "
      "reset_pose { rad: [0, -1.5, 1.5, 0, 0, 0] } } }";
  const PolicyOverrides set = Parse(text)->policies[1].overrides;
  EXPECT_EQ(set.default_prompt, "");
  EXPECT_EQ(set.norm, NormMode::kQuantile);
  EXPECT_EQ(set.robot, Robot::kAloha);
  EXPECT_TRUE(set.absolute_actions.has_value());
  EXPECT_THAT(*set.reset_pose, ElementsAre(0, -1.5, 1.5, 0, 0, 0));
  EXPECT_FALSE(set.pi05.has_value());
}

TEST(ConfigTest, AResetPoseIsAnAngleForEachJoint) {
  const auto policy = [](const std::string& row, const std::string& pose) {
    return "policies { name: 'b' policy_config: '" + row +
           "' synthetic {} tokenizer: 't' precision: BFLOAT16 "
           "overrides { reset_pose { rad: [" +
           pose + "] } } }";
  };
  const std::string aloha = "pi0_aloha_towel";
  EXPECT_TRUE(Parse(policy(aloha, "0, 0, 0, 0, 0, 0")).ok());
  EXPECT_TRUE(Parse(policy(aloha, "")).ok());
  EXPECT_TRUE(Parse(policy("pi0_droid", "0, 0, 0, 0, 0, 0, 0")).ok());
  const std::string field = "policies[1].overrides.reset_pose.rad: got ";
  EXPECT_THAT(Refusal(policy(aloha, "nan, 0, 0, 0, 0, 0")),
              HasSubstr(field + "nan, want finite"));
  EXPECT_THAT(Refusal(policy(aloha, "0, 0, 0, 0, 0, -inf")),
              HasSubstr(field + "-inf, want finite"));
  EXPECT_THAT(Refusal(policy(aloha, "0, 0")),
              HasSubstr(field + "2 angles, want 6"));
  EXPECT_THAT(Refusal(policy("pi0_libero", "0, 0, 0, 0, 0, 0")),
              HasSubstr(field + "6 angles, want 7"));
}

TEST(ConfigTest, PlainTextStaysOnLoopbackUnlessAllowed) {
  const std::string open = "listeners { public: '0.0.0.0:50051' }";
  EXPECT_THAT(Refusal(open), HasSubstr("allow_insecure"));
  EXPECT_TRUE(Parse(open + " allow_insecure: true").ok());
  EXPECT_TRUE(Parse(open + " tls { certificate: 'c' private_key: 'k' }").ok());
  EXPECT_TRUE(Parse("listeners { public: '[::1]:1' }").ok());
}

TEST(ConfigTest, AdminStaysOnLoopback) {
  EXPECT_THAT(
      Refusal("allow_insecure: true listeners { admin: '0.0.0.0:50053' }"),
      HasSubstr("loopback"));
}

TEST(ConfigTest, ApiKeyIsAHash) {
  EXPECT_THAT(Refusal("api_keys { identity: 'a' key_sha256: 'secret' }"),
              Not(HasSubstr("secret")));
  const std::string hash(64, 'A');
  const Config config =
      *Parse("api_keys { identity: 'a' key_sha256: '" + hash + "' }");
  EXPECT_EQ(config.api_keys[0].key_sha256, std::string(64, 'a'));
}

TEST(ConfigTest, AnApiKeyOpensPoliciesThatThereAre) {
  const auto key = [](const std::string& policies) {
    return "api_keys { identity: 'a' key_sha256: '" + std::string(64, 'A') +
           "' policies: [" + policies + "] }";
  };
  EXPECT_THAT(
      Refusal(key("'liberoo'")),
      HasSubstr("api_keys[0].policies: got liberoo, want one of libero"));
  EXPECT_THAT(Refusal(key("'libero', 'a\\nb'")), HasSubstr("got a\\nb"));
  EXPECT_THAT(Parse(key("'libero'"))->api_keys[0].policies,
              ElementsAre("libero"));
}

TEST(ConfigTest, WebsocketIsOffUnlessNamedAndPlainTextOnLoopback) {
  const auto at = Parse("listeners { websocket: '127.0.0.1:8000' }");
  ASSERT_TRUE(at.ok()) << at.status();
  EXPECT_EQ(at->listeners.websocket, "127.0.0.1:8000");
  EXPECT_EQ(at->limits.websocket_connections, 64);
  EXPECT_EQ(at->limits.websocket_in_flight, 4);
  const std::string open = "listeners { websocket: '0.0.0.0:8000' }";
  EXPECT_THAT(Refusal(open), HasSubstr("listeners.websocket"));
  EXPECT_THAT(Refusal(open + "tls { certificate: 'c' private_key: 'k' }"),
              HasSubstr("plain text"));
  EXPECT_TRUE(Parse(open + "allow_insecure: true").ok());
  EXPECT_THAT(Refusal("listeners { websocket: '8000' }"),
              HasSubstr("listeners.websocket"));
  EXPECT_THAT(Refusal("limits { websocket_in_flight: 0 }"),
              HasSubstr("limits.websocket_in_flight"));
  EXPECT_THAT(Refusal("limits { websocket_connections: 0 }"),
              HasSubstr("limits.websocket_connections"));
}

TEST(ConfigTest, MissingFileIsNamed) {
  const absl::Status status = LoadConfig("/nowhere/x.textproto").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/x.textproto"));
}

TEST(ConfigTest, EveryExampleIsAccepted) {
  int examples = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           PISERVE_SOURCE_DIR "/deploy/config")) {
    if (entry.path().extension() != ".textproto") continue;
    EXPECT_EQ(LoadConfig(entry.path().string()).status(), absl::OkStatus())
        << entry.path();
    ++examples;
  }
  EXPECT_GE(examples, 5);
}

TEST(AddressTest, TakesIpAddressesAndLocalhost) {
  EXPECT_EQ(ParseAddress("127.0.0.1:80")->port, 80);
  EXPECT_EQ(ParseAddress("[::1]:0")->host, "::1");
  EXPECT_TRUE(IsLoopback(*ParseAddress("localhost:1")));
  EXPECT_TRUE(IsLoopback(*ParseAddress("127.9.9.9:1")));
  EXPECT_FALSE(IsLoopback(*ParseAddress("0.0.0.0:1")));
  for (const char* bad :
       {"", ":", "80", "host:80", "127.0.0.1:", "::1:80", "127.0.0.1:65536",
        "127.0.0.1:-1", "[::1:80", "127.0.0.1:1e3", "[127.0.0.1]:80"}) {
    EXPECT_FALSE(ParseAddress(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace piserve::server
