// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/load.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <span>

#include "gtest/gtest.h"
#include "model/checkpoint/digest.h"
#include "model/checkpoint/synthetic_weights.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/checkpoint/variant_json.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using piserve::test::GoldenPath;
using test::EntriesOf;
using test::FailsWith;
using test::FileOf;
using test::MicroVariant;
using test::Refuses;
using test::TempFolder;

constexpr char kStats[] = R"({"norm_stats":{"state":{"mean":[0],"std":[1]},)"
                          R"("actions":{"mean":[0],"std":[1]}}})";

PolicyConfig Config(std::string_view name) { return *FindPolicyConfig(name); }

CheckpointOptions Golden(const std::string& folder, std::string_view config) {
  CheckpointOptions options;
  options.folder = GoldenPath(folder);
  options.policy = Config(config);
  return options;
}

// A folder with a micro checkpoint and statistics for pi0_libero.
void WriteMicro(const TempFolder& folder, const Variant& variant) {
  folder.Write("model.safetensors", FileOf(EntriesOf(variant)));
  folder.Write("variant.json", ToJson({.variant = variant, .seed = {}}));
  folder.Write("assets/physical-intelligence/libero/norm_stats.json", kStats);
}

CheckpointOptions Micro(const TempFolder& folder) {
  CheckpointOptions options;
  options.folder = folder.path();
  options.policy = Config("pi0_libero");
  return options;
}

// openpi's file as lerobot's save_pretrained writes it: "model." before every
// name. Byte for byte the golden that it stands for.
void WriteLerobot(const TempFolder& folder) {
  using Json = nlohmann::ordered_json;
  const std::string openpi =
      piserve::test::ReadFile(GoldenPath("tiny_pi0/model.safetensors"));
  std::uint64_t size = 0;
  std::memcpy(&size, openpi.data(), sizeof(size));
  const auto renamed = [](const std::string& name) { return "model." + name; };
  Json header;
  const Json before = Json::parse(openpi.substr(sizeof(size), size));
  for (const auto& [name, value] : before.items()) {
    if (name != "__metadata__") {
      header[renamed(name)] = value;
      continue;
    }
    for (const auto& [alias, kept] : value.items()) {
      header[name][renamed(alias)] = renamed(kept);
    }
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::string file =
      test::RawFile(text, openpi.substr(sizeof(size) + size));
  ASSERT_EQ(*Sha256(std::as_bytes(std::span(file))),
            "0205a13fc0db6218c1078947ca4f353f58271a5110138066d10835ccbdd3ccab");
  folder.Write("model.safetensors", file);
}

TEST(LoadCheckpointTest, OpenpisFoldersLoadForEveryRobot) {
  for (const auto& [folder, config] :
       std::vector<std::pair<const char*, const char*>>{
           {"tiny_pi0", "pi0_libero"},
           {"tiny_pi0", "pi0_aloha_towel"},
           {"tiny_pi0", "pi0_droid"},
           {"tiny_pi05", "pi05_libero"},
           {"tiny_pi05", "pi05_aloha"},
           {"tiny_pi05", "pi05_droid"}}) {
    const auto checkpoint = LoadCheckpoint(Golden(folder, config));
    ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
    EXPECT_EQ(checkpoint->variant.pi05, checkpoint->policy.pi05);
    EXPECT_EQ(checkpoint->policy.name, config);
  }
}

TEST(LoadCheckpointTest, HorizonAndPromptLimitFollowTheVariant) {
  const auto checkpoint = LoadCheckpoint(Golden("tiny_pi05", "pi05_droid"));
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->variant.action_horizon, 7);
  EXPECT_EQ(checkpoint->policy.action_horizon, 7);
  EXPECT_EQ(checkpoint->policy.max_token_len, 200);
  EXPECT_EQ(checkpoint->norm_stats.actions.mean.size(), 8);
}

// The same values by three ways of storing them.
TEST(LoadCheckpointTest, LerobotsFileHoldsTheSameTensors) {
  const TempFolder folder;
  WriteLerobot(folder);
  CheckpointOptions options = Micro(folder);
  options.policy = Config("pi0_droid");
  options.variant_path = GoldenPath("tiny_pi0/variant.json");
  options.norm_stats_path = GoldenPath("tiny_pi0/assets/droid/norm_stats.json");
  const auto lerobot = LoadCheckpoint(options);
  ASSERT_TRUE(lerobot.ok()) << lerobot.status();
  const auto openpi = LoadCheckpoint(Golden("tiny_pi0", "pi0_droid"));
  ASSERT_TRUE(openpi.ok()) << openpi.status();
  for (const TensorSpec& spec : TensorSpecs(openpi->variant)) {
    const Tensor a = openpi->weights->Find(spec.name).value();
    const Tensor b = lerobot->weights->Find(spec.name).value();
    EXPECT_TRUE(
        std::equal(a.data.begin(), a.data.end(), b.data.begin(), b.data.end()))
        << spec.name;
  }
  EXPECT_NE(openpi->weights->digest(), lerobot->weights->digest());
}

TEST(LoadCheckpointTest, AFloat32FileKeepsItsDtype) {
  CheckpointOptions options = Golden("tiny_pi0/float32", "pi0_droid");
  options.variant_path = GoldenPath("tiny_pi0/variant.json");
  options.norm_stats_path = GoldenPath("tiny_pi0/assets/droid/norm_stats.json");
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->weights->Find(kTokenEmbedding)->dtype, DType::kFloat32);
}

TEST(LoadCheckpointTest, AKindThatContradictsTheConfigurationIsRefused) {
  EXPECT_THAT(LoadCheckpoint(Golden("tiny_pi0", "pi05_libero")),
              Refuses({"policy configuration \"pi05_libero\": got pi05, want "
                       "pi0 as the weights say"}));
  EXPECT_THAT(LoadCheckpoint(Golden("tiny_pi05", "pi0_libero")),
              Refuses({"\"pi0_libero\": got pi0, want pi05"}));
}

TEST(LoadCheckpointTest, AKindThatContradictsVariantJsonIsRefused) {
  CheckpointOptions options = Golden("tiny_pi0", "pi0_libero");
  options.variant_path = GoldenPath("tiny_pi05/variant.json");
  EXPECT_THAT(LoadCheckpoint(options),
              Refuses({"tiny_pi05/variant.json: got pi05, want pi0"}));
}

TEST(LoadCheckpointTest, SizesThatContradictVariantJsonNameATensor) {
  const TempFolder folder;
  const Variant variant = MicroVariant(false);
  WriteMicro(folder, variant);
  Variant other = variant;
  other.vlm.mlp = 8;
  folder.Write("variant.json", ToJson({.variant = other, .seed = {}}));
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"mlp.down_proj.weight", "[6, 7]", "[6, 8]"}));
}

TEST(LoadCheckpointTest, OtherSizesThanReleasedNeedVariantJson) {
  const TempFolder folder;
  WriteLerobot(folder);
  CheckpointOptions options = Micro(folder);
  options.policy = Config("pi0_droid");
  options.norm_stats_path = GoldenPath("tiny_pi0/assets/droid/norm_stats.json");
  EXPECT_THAT(LoadCheckpoint(options),
              Refuses({"tensor \"model.action_in_proj.bias\": got BF16 [64], "
                       "want BF16 [1024]",
                       "need a variant.json"}));
}

TEST(LoadCheckpointTest, EachSourceOutranksTheNext) {
  const TempFolder folder;
  const Variant variant = MicroVariant(false);  // horizon 5, limit 8
  WriteMicro(folder, variant);
  folder.Write("config.json",
               R"({"type":"pi0","chunk_size":6,"tokenizer_max_length":9,)"
               R"("num_inference_steps":4})");
  CheckpointOptions options = Micro(folder);
  options.action_horizon = 7;
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->variant.action_horizon, 7);  // the options
  EXPECT_EQ(checkpoint->variant.max_token_len, 8);   // variant.json
  EXPECT_EQ(checkpoint->num_inference_steps, 4);
}

// Synthetic weights of the released sizes cost nothing until they are read.
TEST(LoadCheckpointTest, LerobotsConfigOutranksThePolicyConfiguration) {
  const TempFolder folder;
  folder.Write("config.json", R"({"type":"pi0","chunk_size":6})");
  CheckpointOptions options = Micro(folder);
  options.synthetic_seed = 3;
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->variant.action_horizon, 6);
  EXPECT_EQ(checkpoint->variant.max_token_len, 48);
}

TEST(LoadCheckpointTest, ALerobotConfigOfAnotherKindOrSizeIsRefused) {
  const TempFolder folder;
  WriteMicro(folder, MicroVariant(false));
  folder.Write("config.json", R"({"type":"pi05"})");
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"config.json: type: got pi05, want pi0"}));
  folder.Write("config.json", R"({"type":"pi0","max_action_dim":32})");
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"config.json: max_action_dim: got 32, want 3"}));
  folder.Write("config.json", "{");
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"config.json: not JSON"}));
}

TEST(LoadCheckpointTest, OpenpisConfigIsNotTrusted) {
  const TempFolder folder;
  WriteMicro(folder, MicroVariant(false));
  folder.Write("config.json", R"({"action_dim":32,"action_horizon":50,)"
                              R"("paligemma_variant":"gemma_2b"})");
  EXPECT_TRUE(LoadCheckpoint(Micro(folder)).ok());
}

TEST(LoadCheckpointTest, ABrokenVariantJsonIsRefused) {
  const TempFolder folder;
  WriteMicro(folder, MicroVariant(false));
  folder.Write("variant.json", R"({"pi05":false})");
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"variant.json: action_dim: missing"}));
}

TEST(LoadCheckpointTest, ABrokenFileIsRefusedWithItsPath) {
  const TempFolder folder;
  const Variant variant = MicroVariant(false);
  WriteMicro(folder, variant);
  const std::string file = FileOf(EntriesOf(variant));
  folder.Write("model.safetensors", file.substr(0, file.size() - 1));
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              Refuses({"model.safetensors: tensor ", "truncated"}));
}

TEST(LoadCheckpointTest, AJaxCheckpointIsToldHowToBeConverted) {
  const TempFolder folder;
  folder.Write("params/_METADATA", "{}");
  folder.Write("assets/physical-intelligence/libero/norm_stats.json", kStats);
  EXPECT_THAT(LoadCheckpoint(Micro(folder)),
              FailsWith(absl::StatusCode::kNotFound,
                        std::vector<std::string>{
                            "model.safetensors: no such file", "params/",
                            "convert_jax_model_to_pytorch.py"}));
}

TEST(LoadCheckpointTest, MissingFilesAreNotFound) {
  const TempFolder folder;
  const auto not_found = [](std::vector<std::string> parts) {
    return FailsWith(absl::StatusCode::kNotFound, parts);
  };
  CheckpointOptions options = Micro(folder);
  EXPECT_THAT(LoadCheckpoint(options),
              not_found({"model.safetensors: no such file"}));
  WriteMicro(folder, MicroVariant(false));
  options.policy.asset_id = "elsewhere";
  EXPECT_THAT(LoadCheckpoint(options),
              not_found({"assets/elsewhere/norm_stats.json: no such file"}));
  options.norm_stats_path = folder.path() + "/mine.json";
  EXPECT_THAT(LoadCheckpoint(options), not_found({"mine.json"}));
  options.variant_path = folder.path() + "/sizes.json";
  EXPECT_THAT(LoadCheckpoint(options), not_found({"sizes.json"}));
}

TEST(LoadCheckpointTest, NormStatsMayLieElsewhere) {
  const TempFolder folder;
  WriteMicro(folder, MicroVariant(false));
  CheckpointOptions options = Micro(folder);
  options.policy.asset_id = "elsewhere";
  options.norm_stats_path = folder.Write(
      "mine.json", R"({"norm_stats":{"state":{"mean":[4],"std":[1]},)"
                   R"("actions":{"mean":[5],"std":[1]}}})");
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(checkpoint->norm_stats.actions.mean[0], 5);
}

TEST(LoadCheckpointTest, StatisticsThatCannotServeAreRefused) {
  const TempFolder folder;
  WriteMicro(folder, MicroVariant(false));
  CheckpointOptions options = Micro(folder);
  options.policy.norm = NormMode::kQuantile;
  EXPECT_THAT(LoadCheckpoint(options),
              Refuses({"norm_stats.json: norm_stats.state: q01 or q99"}));
}

TEST(LoadCheckpointTest, SyntheticWeightsNeedNoFile) {
  CheckpointOptions options;
  options.policy = Config("pi05_libero");
  options.synthetic_seed = 4;
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  Variant want = Pi05Variant();
  want.action_horizon = 10;
  EXPECT_EQ(DebugString(checkpoint->variant), DebugString(want));
  EXPECT_EQ(checkpoint->norm_stats.state.mean.size(), 32);
  EXPECT_EQ(checkpoint->weights->Rule("time_mlp_in.bias")->seed, 4);
}

TEST(LoadCheckpointTest, SyntheticWeightsTakeTheirSizesFromVariantJson) {
  CheckpointOptions options;
  options.policy = Config("pi0_droid");
  options.variant_path = GoldenPath("tiny_pi0/variant.json");
  options.synthetic_seed = 1;
  const auto made = LoadCheckpoint(options);
  ASSERT_TRUE(made.ok()) << made.status();
  const auto stored = LoadCheckpoint(Golden("tiny_pi0", "pi0_droid"));
  ASSERT_TRUE(stored.ok()) << stored.status();
  const Tensor a = made->weights->Find("state_proj.weight").value();
  const Tensor b = stored->weights->Find("state_proj.weight").value();
  EXPECT_TRUE(
      std::equal(a.data.begin(), a.data.end(), b.data.begin(), b.data.end()));
}

TEST(LoadCheckpointTest, NothingToLoadIsRefused) {
  EXPECT_THAT(LoadCheckpoint({}), Refuses({"neither a folder nor"}));
}

TEST(LoadCheckpointTest, AnOverriddenSizeIsChecked) {
  CheckpointOptions options = Golden("tiny_pi0", "pi0_droid");
  options.action_horizon = 0;
  EXPECT_THAT(LoadCheckpoint(options), Refuses({"action_horizon: got 0"}));
}

}  // namespace
}  // namespace piserve::checkpoint
