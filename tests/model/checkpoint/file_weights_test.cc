// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/file_weights.h"

#include "gtest/gtest.h"
#include "model/checkpoint/tensor_spec.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

using test::EntriesOf;
using test::Entry;
using test::FileOf;
using test::FindEntry;
using test::MicroVariant;
using test::ParseCopy;
using test::Refuses;
using test::Zeros;

constexpr char kLayerNorm[] =
    "paligemma_with_expert.paligemma.model.vision_tower.vision_model.encoder."
    "layers.1.layer_norm2.bias";

absl::StatusOr<std::unique_ptr<Weights>> Make(std::vector<Entry> entries,
                                              const Variant& variant) {
  const absl::StatusOr<Safetensors> file = ParseCopy(FileOf(entries));
  if (!file.ok()) return file.status();
  return MakeFileWeights(*file, variant);
}

absl::StatusOr<Variant> Detect(std::vector<Entry> entries) {
  const absl::StatusOr<Safetensors> file = ParseCopy(FileOf(entries));
  if (!file.ok()) return file.status();
  const absl::StatusOr<TensorIndex> index = IndexTensors(*file);
  if (!index.ok()) return index.status();
  return DetectVariant(*index);
}

TEST(FileWeightsTest, EveryTensorOfTheVariantIsFoundInPlace) {
  for (const bool pi05 : {false, true}) {
    const Variant variant = MicroVariant(pi05);
    const auto file = ParseCopy(FileOf(EntriesOf(variant)));
    ASSERT_TRUE(file.ok()) << file.status();
    const auto weights = MakeFileWeights(*file, variant);
    ASSERT_TRUE(weights.ok()) << weights.status();
    for (const TensorSpec& spec : TensorSpecs(variant)) {
      const auto tensor = (*weights)->Find(spec.name);
      ASSERT_TRUE(tensor.ok()) << tensor.status();
      EXPECT_EQ(tensor->shape, spec.shape);
      EXPECT_EQ(tensor->data.data(), file->Find(spec.name)->data.data());
      EXPECT_EQ(tensor->owner, file->owner());
      EXPECT_EQ((*weights)->Rule(spec.name), std::nullopt);
    }
  }
}

TEST(FileWeightsTest, ATensorOutlivesTheWeights) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  FindEntry(entries, kLayerNorm)->data.assign(8, 'q');
  Tensor tensor;
  {
    const auto weights = Make(entries, variant);
    ASSERT_TRUE(weights.ok()) << weights.status();
    tensor = (*weights)->Find(kLayerNorm).value();
  }
  EXPECT_EQ(tensor.data[7], std::byte{'q'});
}

TEST(FileWeightsTest, DtypesMayMix) {
  const Variant variant = MicroVariant(true);
  std::vector<Entry> entries = EntriesOf(variant);
  Entry* entry = FindEntry(entries, "time_mlp_in.weight");
  *entry = Zeros(entry->name, StoredDType::kF32, entry->shape);
  const auto weights = Make(entries, variant);
  ASSERT_TRUE(weights.ok()) << weights.status();
  const Tensor wide = (*weights)->Find("time_mlp_in.weight").value();
  EXPECT_EQ(wide.dtype, DType::kFloat32);
  EXPECT_EQ(wide.data.size(), 4 * 4 * SizeOf(wide.dtype));
  EXPECT_EQ((*weights)->Find("time_mlp_in.bias")->dtype, DType::kBFloat16);
}

TEST(FileWeightsTest, AnUnknownNameIsNotFound) {
  const auto weights =
      Make(EntriesOf(MicroVariant(false)), MicroVariant(false));
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(absl::IsNotFound((*weights)->Find("nope").status()));
}

TEST(FileWeightsTest, EveryMissingTensorIsNamed) {
  for (const bool pi05 : {false, true}) {
    const Variant variant = MicroVariant(pi05);
    for (const TensorSpec& spec : TensorSpecs(variant)) {
      std::vector<Entry> entries = EntriesOf(variant);
      test::Remove(entries, spec.name);
      EXPECT_THAT(Make(entries, variant),
                  Refuses({"tensor \"" + spec.name + "\": missing, want " +
                           Describe(StoredDType::kBF16, spec.shape)}));
    }
  }
}

TEST(FileWeightsTest, TheDeadExpertHeadMayBeMissing) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  test::Remove(entries, DeadExpertHead(variant).name);
  EXPECT_TRUE(Make(entries, variant).ok());
}

TEST(FileWeightsTest, EveryWrongShapeIsNamed) {
  const Variant variant = MicroVariant(false);
  for (const TensorSpec& spec : TensorSpecs(variant)) {
    std::vector<Entry> entries = EntriesOf(variant);
    std::vector<std::int64_t> shape = spec.shape;
    ++shape.back();
    *FindEntry(entries, spec.name) =
        Zeros(spec.name, StoredDType::kBF16, shape);
    EXPECT_THAT(Make(entries, variant),
                Refuses({"tensor \"" + spec.name + "\": got " +
                             Describe(StoredDType::kBF16, shape),
                         "want " + Describe(StoredDType::kBF16, spec.shape)}));
  }
}

TEST(FileWeightsTest, ATransposedMatrixIsRefused) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  Entry* entry = FindEntry(entries, "action_time_mlp_in.weight");
  std::swap(entry->shape[0], entry->shape[1]);
  EXPECT_THAT(Make(entries, variant),
              Refuses({"action_time_mlp_in.weight", "[8, 4]", "[4, 8]"}));
}

TEST(FileWeightsTest, AWrongDtypeIsRefused) {
  const Variant variant = MicroVariant(false);
  for (const StoredDType dtype :
       {StoredDType::kF16, StoredDType::kF64, StoredDType::kI32}) {
    std::vector<Entry> entries = EntriesOf(variant);
    *FindEntry(entries, kLayerNorm) = Zeros(kLayerNorm, dtype, {4});
    EXPECT_THAT(Make(entries, variant),
                Refuses({kLayerNorm, "got " + Describe(dtype, {{4}}),
                         "want BF16 [4] or F32"}));
  }
}

TEST(FileWeightsTest, AnUnknownTensorIsRefusedUnderItsStoredName) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  entries.push_back(Zeros("model.extra", StoredDType::kBF16, {1}));
  EXPECT_THAT(Make(entries, variant),
              Refuses({"tensor \"model.extra\"", "no such tensor"}));
}

TEST(FileWeightsTest, ALayerTooManyIsRefused) {
  Variant variant = MicroVariant(false);
  const std::vector<Entry> entries = EntriesOf(variant);
  variant.vision.depth = 1;
  EXPECT_THAT(Make(entries, variant), Refuses({"encoder.layers.1."}));
}

TEST(FileWeightsTest, TensorsOfTheOtherKindAreRefused) {
  std::vector<Entry> entries = EntriesOf(MicroVariant(true));
  entries.push_back(Zeros("state_proj.bias", StoredDType::kBF16, {4}));
  EXPECT_THAT(Make(entries, MicroVariant(true)),
              Refuses({"state_proj.bias", "pi05 of these sizes"}));
}

TEST(FileWeightsTest, TheDigestFollowsEveryByte) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  const std::string digest = Make(entries, variant).value()->digest();
  EXPECT_EQ(digest.size(), 64);
  EXPECT_EQ(Make(entries, variant).value()->digest(), digest);
  FindEntry(entries, kLayerNorm)->data[3] ^= 1;
  EXPECT_NE(Make(entries, variant).value()->digest(), digest);
}

TEST(FileWeightsTest, LerobotsNamesReachTheSameTensors) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  for (Entry& entry : entries) entry.name = "model." + entry.name;
  entries.push_back(
      Zeros("normalize_inputs.buffer_state.mean", StoredDType::kF32, {3}));
  EXPECT_TRUE(Make(entries, variant).ok());
}

TEST(FileWeightsTest, OldLerobotsNestingReachesTheSameTensors) {
  const Variant variant = MicroVariant(false);
  std::vector<Entry> entries = EntriesOf(variant);
  const std::string p = "paligemma_with_expert.paligemma.";
  const std::pair<std::string, std::string> rows[] = {
      {p + "model.language_model.", p + "language_model.model."},
      {p + "lm_head.", p + "language_model.lm_head."},
      {p + "model.vision_tower.", p + "vision_tower."},
      {p + "model.multi_modal_projector.", p + "multi_modal_projector."}};
  for (Entry& entry : entries) {
    for (const auto& [from, to] : rows) {
      if (!entry.name.starts_with(from)) continue;
      entry.name = to + entry.name.substr(from.size());
      break;
    }
    entry.name = "model." + entry.name;
  }
  EXPECT_TRUE(Make(entries, variant).ok()) << Make(entries, variant).status();
}

TEST(DetectVariantTest, KindVocabularyAndActionDimComeFromTheTensors) {
  for (const bool pi05 : {false, true}) {
    const auto variant = Detect(EntriesOf(MicroVariant(pi05)));
    ASSERT_TRUE(variant.ok()) << variant.status();
    EXPECT_EQ(variant->pi05, pi05);
    EXPECT_EQ(variant->vocab, 11);
    EXPECT_EQ(variant->action_dim, 3);
    EXPECT_EQ(variant->vision.width, 1152);
  }
}

TEST(DetectVariantTest, NeitherAndBothKindsAreRefused) {
  std::vector<Entry> entries = EntriesOf(MicroVariant(false));
  entries.push_back(Zeros("time_mlp_in.weight", StoredDType::kBF16, {4, 4}));
  EXPECT_THAT(Detect(entries), Refuses({"state_proj.weight", "found beside",
                                        "time_mlp_in.weight"}));
  test::Remove(entries, "time_mlp_in.weight");
  test::Remove(entries, "state_proj.weight");
  EXPECT_THAT(Detect(entries),
              Refuses({"state_proj.weight", "missing", "time_mlp_in.weight"}));
}

TEST(DetectVariantTest, WhatTellsASizeMustBeAMatrix) {
  std::vector<Entry> entries = EntriesOf(MicroVariant(false));
  test::Remove(entries, kTokenEmbedding);
  EXPECT_THAT(Detect(entries), Refuses({"lm_head.weight", "missing"}));
  entries.push_back(
      Zeros(std::string(kTokenEmbedding), StoredDType::kBF16, {2}));
  EXPECT_THAT(Detect(entries), Refuses({"lm_head.weight", "BF16 [2]"}));
}

}  // namespace
}  // namespace piserve::checkpoint
