// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/variant_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "gtest/gtest.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using nlohmann::json;
using test::MicroVariant;
using test::Refuses;

json Micro() {
  return json::parse(ToJson({.variant = MicroVariant(true), .seed = 7}));
}

TEST(VariantJsonTest, TheGoldenSizesAreRead) {
  const auto file =
      ReadVariantJson(piserve::test::GoldenPath("tiny_pi05/variant.json"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(DebugString(file->variant),
            "pi05 vision {width 72, depth 3, heads 4, mlp 100, patch 14, image "
            "224} vlm {width 128, depth 3, mlp 320, heads 8, kv_heads 1, "
            "head_dim 32} expert {width 64, depth 3, mlp 160, heads 8, "
            "kv_heads 1, head_dim 32} vocab 1024 action_dim 32 action_horizon "
            "7 max_token_len 200");
  EXPECT_EQ(file->seed, 2);
}

TEST(VariantJsonTest, WhatIsWrittenIsReadAgain) {
  for (const Variant& variant :
       {Pi0Variant(), Pi05Variant(), MicroVariant(false)}) {
    const auto file =
        ParseVariantJson(ToJson({.variant = variant, .seed = ~0ull}));
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(DebugString(file->variant), DebugString(variant));
    EXPECT_EQ(file->seed, ~0ull);
  }
}

TEST(VariantJsonTest, TheSeedMayBeAbsentAndUnknownFieldsAreIgnored) {
  json file = Micro();
  file.erase("seed");
  file["note"] = {1, 2};
  const auto variant = ParseVariantJson(file.dump());
  ASSERT_TRUE(variant.ok()) << variant.status();
  EXPECT_EQ(variant->seed, std::nullopt);
}

// Every number of the file by its path.
std::vector<std::string> Paths() {
  std::vector<std::string> paths;
  const json flat = Micro().flatten();
  for (const auto& [path, value] : flat.items()) {
    paths.push_back(path);
  }
  return paths;
}

std::string InMessages(std::string path) {
  path.erase(0, 1);
  std::replace(path.begin(), path.end(), '/', '.');
  return path;
}

TEST(VariantJsonTest, EveryMissingFieldIsNamed) {
  for (const std::string& path : Paths()) {
    if (path == "/seed") continue;
    json file = Micro();
    const json::json_pointer pointer(path);
    file[pointer.parent_pointer()].erase(pointer.back());
    EXPECT_THAT(ParseVariantJson(file.dump()),
                Refuses({InMessages(path) + ": missing"}));
  }
}

TEST(VariantJsonTest, EveryFieldOfAWrongTypeIsNamed) {
  for (const std::string& path : Paths()) {
    for (const json& value :
         {json("3"), json(1.5), json(-1), json(nullptr), json::array({1})}) {
      json file = Micro();
      file[json::json_pointer(path)] = value;
      EXPECT_THAT(ParseVariantJson(file.dump()),
                  Refuses({InMessages(path) + ": got"}))
          << path << " " << value;
    }
  }
}

TEST(VariantJsonTest, NumbersThatDoNotFitAreRefused) {
  for (const json& value : {json(0), json(1ull << 31), json(~0ull)}) {
    json file = Micro();
    file["vlm"]["width"] = value;
    EXPECT_THAT(ParseVariantJson(file.dump()), Refuses({"vlm.width"})) << value;
  }
}

TEST(VariantJsonTest, ContradictorySizesAreRefused) {
  json file = Micro();
  file["expert"]["heads"] = 2;
  EXPECT_THAT(ParseVariantJson(file.dump()),
              Refuses({"expert.heads: got 2, want 4"}));
}

TEST(VariantJsonTest, WhatIsNoObjectIsRefused) {
  EXPECT_THAT(ParseVariantJson("[]"), Refuses({"top level"}));
  EXPECT_THAT(ParseVariantJson("{"), Refuses({"not JSON"}));
  json file = Micro();
  file["vision"] = 3;
  EXPECT_THAT(ParseVariantJson(file.dump()), Refuses({"vision: got 3"}));
}

}  // namespace
}  // namespace piserve::checkpoint
