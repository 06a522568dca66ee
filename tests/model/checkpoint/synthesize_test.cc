// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/synthesize.h"

#include "gtest/gtest.h"
#include "model/checkpoint/load.h"
#include "model/checkpoint/variant_json.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

// Header and data: openpi's save_model wrote the golden files.
void ExpectSameFile(const std::string& golden_folder,
                    const std::string& golden_file, DType dtype) {
  const auto sizes = ReadVariantJson(
      piserve::test::GoldenPath(golden_folder + "/variant.json"));
  ASSERT_TRUE(sizes.ok()) << sizes.status();
  const test::TempFolder folder;
  const absl::Status status = WriteSyntheticCheckpoint(
      sizes->variant, *sizes->seed, dtype, folder.path());
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(piserve::test::ReadFile(folder.path() + "/model.safetensors") ==
              piserve::test::ReadFile(piserve::test::GoldenPath(golden_file)));
}

TEST(SynthesizeTest, TheGoldenFilesAreWrittenByteForByte) {
  ExpectSameFile("tiny_pi0", "tiny_pi0/model.safetensors", DType::kBFloat16);
  ExpectSameFile("tiny_pi0", "tiny_pi0/float32/model.safetensors",
                 DType::kFloat32);
  ExpectSameFile("tiny_pi05", "tiny_pi05/model.safetensors", DType::kBFloat16);
}

TEST(SynthesizeTest, AnAwkwardSizeIsLoadedAgain) {
  const test::TempFolder folder;
  const std::string out = folder.path() + "/made/here";
  const Variant variant = test::MicroVariant(true);
  const absl::Status status =
      WriteSyntheticCheckpoint(variant, 77, DType::kFloat32, out);
  ASSERT_TRUE(status.ok()) << status;
  CheckpointOptions options;
  options.folder = out;
  options.policy = *FindPolicyConfig("pi05_libero");
  options.norm_stats_path = folder.Write(
      "s.json", R"({"norm_stats":{"state":{"mean":[0],"std":[1],)"
                R"("q01":[0],"q99":[1]},"actions":{"mean":[0],"std":[1],)"
                R"("q01":[0],"q99":[1]}}})");
  const auto checkpoint = LoadCheckpoint(options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ(DebugString(checkpoint->variant), DebugString(variant));
}

TEST(SynthesizeTest, WhatCannotBeWrittenIsRefused) {
  const test::TempFolder folder;
  const std::string file = folder.Write("file", "x");
  EXPECT_THAT(WriteSyntheticCheckpoint(test::MicroVariant(false), 1,
                                       DType::kBFloat16, file + "/below"),
              test::Refuses({"cannot make the folder"}));
  Variant variant = test::MicroVariant(false);
  variant.vocab = 0;
  EXPECT_THAT(WriteSyntheticCheckpoint(variant, 1, DType::kBFloat16,
                                       folder.path() + "/new"),
              test::Refuses({"vocab"}));
}

}  // namespace
}  // namespace piserve::checkpoint
