// SPDX-License-Identifier: Apache-2.0
#include "model/checkpoint/synthetic_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "gtest/gtest.h"
#include "model/checkpoint/file_weights.h"
#include "tests/model/checkpoint/files.h"
#include "tests/support/golden.h"

namespace piserve::checkpoint {
namespace {

const std::string kP = "paligemma_with_expert.paligemma.";
const std::string kV = std::string(kVisionPrefix);
const std::string kT = std::string(kVlmPrefix);
const std::string kE = std::string(kExpertPrefix);

struct Vector {
  std::string name;
  bool pi05 = false;  // the variant that has it
  std::vector<std::int64_t> shape;
  std::uint32_t amp;
  struct Element {
    std::uint64_t index;
    std::uint32_t float32;
    std::uint16_t bfloat16;
  };
  std::vector<Element> elements;
};

// docs/synthetic.md, "Test vectors": seed 3, full-size shapes.
std::vector<Vector> Vectors() {
  return {
      {kP + "lm_head.weight",
       false,
       {257152, 2048},
       0x3d9cc471,
       {{0, 0x3ba1efbd, 0x3ba2},
        {1, 0x3d13694f, 0x3d13},
        {526647295, 0xbcb652e3, 0xbcb6}}},
      {kV + "embeddings.patch_embedding.weight",
       false,
       {1152, 3, 14, 14},
       0x3e124925,
       {{0, 0x3d77d11a, 0x3d78},
        {1, 0xbd45b4c3, 0xbd46},
        {677375, 0x3c89bc05, 0x3c8a}}},
      {kV + "embeddings.position_embedding.weight",
       false,
       {256, 1152},
       0x3fddb3d7,
       {{0, 0x3dc94011, 0x3dc9},
        {1, 0x3f2d1674, 0x3f2d},
        {294911, 0xbec8061e, 0xbec8}}},
      {kV + "encoder.layers.26.layer_norm1.weight",
       false,
       {1152},
       0x3eb15cac,
       {{0, 0x3f5a1470, 0x3f5a},
        {1, 0x3f8265e5, 0x3f82},
        {1151, 0x3f8cc894, 0x3f8d}}},
      {kV + "encoder.layers.0.self_attn.q_proj.weight",
       false,
       {1152, 1152},
       0x3e36e52e,
       {{0, 0x3d168e7e, 0x3d17},
        {1, 0xbd240a5c, 0xbd24},
        {1327103, 0x3da6943d, 0x3da7}}},
      {kV + "encoder.layers.0.self_attn.out_proj.weight",
       false,
       {1152, 1152},
       0x3dd105ec,
       {{0, 0x3a90a65e, 0x3a91},
        {1, 0x3cd78a9c, 0x3cd8},
        {1327103, 0xbd3b07da, 0xbd3b}}},
      {kT + "layers.0.self_attn.k_proj.weight",
       false,
       {256, 2048},
       0x3e092be3,
       {{0, 0xbd4f0891, 0xbd4f},
        {1, 0x3d439bc3, 0x3d44},
        {524287, 0xbd5e6689, 0xbd5e}}},
      {kT + "layers.17.mlp.down_proj.weight",
       false,
       {2048, 16384},
       0x3cddb3d7,
       {{0, 0x3bdd05cc, 0x3bdd},
        {1, 0xbb48e028, 0xbb49},
        {33554431, 0xbabd42df, 0xbabd}}},
      {kT + "layers.3.input_layernorm.weight",
       false,
       {2048},
       0x3eb15cac,
       {{0, 0xbde44407, 0xbde4},
        {1, 0xbdfff1fd, 0xbe00},
        {2047, 0xbd179bb5, 0xbd18}}},
      {kE + "layers.0.self_attn.k_proj.weight",
       false,
       {256, 1024},
       0x3e8a9067,
       {{0, 0xbdb411d9, 0xbdb4},
        {1, 0x3d434b3e, 0x3d43},
        {262143, 0xbdfc71b2, 0xbdfc}}},
      {kE + "layers.0.self_attn.o_proj.weight",
       false,
       {1024, 2048},
       0x3e1cc471,
       {{0, 0x3d526a48, 0x3d52},
        {1, 0x3cd5d7d2, 0x3cd6},
        {2097151, 0xbd01af1d, 0xbd02}}},
      {kE + "layers.5.input_layernorm.dense.weight",
       true,
       {3072, 1024},
       0x3d5db3d7,
       {{0, 0xbc9fe748, 0xbca0},
        {1, 0xbcb7e485, 0xbcb8},
        {3145727, 0x3cc8178e, 0x3cc8}}},
      {kE + "norm.dense.bias",
       true,
       {3072},
       0x3f050581,
       {{0, 0x3e160499, 0x3e16},
        {1, 0xbc221815, 0xbc22},
        {3071, 0x3e7c2b62, 0x3e7c}}},
      {"state_proj.weight",
       false,
       {1024, 32},
       0x3f1cc471,
       {{0, 0xbe3024f0, 0xbe30},
        {1, 0xbe229d9e, 0xbe23},
        {32767, 0x3e7e0f13, 0x3e7e}}},
      {"action_out_proj.bias",
       false,
       {32},
       0x3eb15cac,
       {{0, 0x3e05ac87, 0x3e06},
        {1, 0x3da9ae5a, 0x3daa},
        {31, 0x3e027613, 0x3e02}}},
  };
}

std::vector<TensorSpec> FullSpecs(bool pi05) {
  return TensorSpecs(pi05 ? Pi05Variant() : Pi0Variant());
}

TEST(SyntheticWeightsTest, TheDocumentedVectorsHold) {
  for (const Vector& vector : Vectors()) {
    const std::vector<TensorSpec> specs = FullSpecs(vector.pi05);
    const auto spec = std::find_if(
        specs.begin(), specs.end(),
        [&](const TensorSpec& s) { return s.name == vector.name; });
    ASSERT_NE(spec, specs.end()) << vector.name;
    EXPECT_EQ(spec->shape, vector.shape) << vector.name;
    const SyntheticRule rule = SyntheticRuleOf(*spec, 3);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(rule.amp), vector.amp)
        << vector.name;
    for (const Vector::Element& element : vector.elements) {
      const float value = SyntheticValue(rule, element.index);
      EXPECT_EQ(std::bit_cast<std::uint32_t>(value), element.float32)
          << vector.name << "[" << element.index << "]";
      EXPECT_EQ(RoundToBFloat16(value), element.bfloat16)
          << vector.name << "[" << element.index << "]";
    }
  }
}

TEST(SyntheticWeightsTest, TheDocumentedHashAndBitsHold) {
  const std::uint64_t hash = NameHash("action_out_proj.bias");
  EXPECT_EQ(hash, 0x5d9e6bea9cf187e1);
  EXPECT_EQ(SyntheticBits(hash, 3, 0), 0xe0788a0a57996dcb);
  EXPECT_EQ(SyntheticBits(hash, 3, 1), 0xbd3a771ea23e7f5b);
}

// The rows that no documented vector reaches.
TEST(SyntheticWeightsTest, TheRemainingRowsHaveTheirAmplitude) {
  const auto amp = [](const std::string& name,
                      std::vector<std::int64_t> shape) {
    return SyntheticRuleOf({name, std::move(shape)}, 1).amp;
  };
  const auto want = [](double std) {
    return static_cast<float>(std::sqrt(12.0) * std);
  };
  EXPECT_EQ(amp(kE + "layers.0.self_attn.q_proj.weight", {256, 64}),
            want(1.5 / 8));
  EXPECT_EQ(amp(kT + "layers.0.self_attn.q_proj.weight", {256, 64}),
            want(1.75 / 8));
  EXPECT_EQ(amp(kV + "encoder.layers.0.self_attn.k_proj.weight", {64, 64}),
            want(1.75 / 8));
  EXPECT_EQ(amp(kT + "layers.0.self_attn.o_proj.weight", {64, 64}),
            want(1.0 / 8));
  EXPECT_EQ(amp(kE + "layers.0.input_layernorm.dense.bias", {96}), want(0.15));
  EXPECT_EQ(amp(kE + "layers.0.post_attention_layernorm.dense.bias", {96}),
            want(0.15));
  EXPECT_EQ(amp("time_mlp_in.weight", {64, 64}), want(1.0 / 8));
}

void ExpectEqualToFile(const char* golden, const Variant& variant,
                       std::uint64_t seed, DType dtype) {
  const auto file = Safetensors::Open(piserve::test::GoldenPath(golden));
  ASSERT_TRUE(file.ok()) << file.status();
  const auto weights = MakeSyntheticWeights(variant, seed, dtype);
  ASSERT_TRUE(weights.ok()) << weights.status();
  std::vector<Tensor> tensors = {
      MakeSyntheticTensor(DeadExpertHead(variant), seed, dtype)};
  for (const TensorSpec& spec : TensorSpecs(variant)) {
    tensors.push_back((*weights)->Find(spec.name).value());
  }
  EXPECT_EQ(tensors.size(), file->tensors().size());
  for (const Tensor& tensor : tensors) {
    const StoredTensor* stored = file->Find(tensor.name);
    ASSERT_NE(stored, nullptr) << tensor.name;
    ASSERT_EQ(stored->data.size(), tensor.data.size()) << tensor.name;
    EXPECT_EQ(stored->shape, tensor.shape) << tensor.name;
    EXPECT_EQ(std::memcmp(stored->data.data(), tensor.data.data(),
                          tensor.data.size()),
              0)
        << tensor.name;
  }
}

Variant Tiny(bool pi05) {
  Variant variant;
  variant.pi05 = pi05;
  variant.vision = {.width = 72,
                    .depth = 3,
                    .heads = 4,
                    .mlp = 100,
                    .patch = 14,
                    .image = 224};
  variant.vlm = {.width = 128,
                 .depth = 3,
                 .mlp = 320,
                 .heads = 8,
                 .kv_heads = 1,
                 .head_dim = 32};
  variant.expert = {.width = 64,
                    .depth = 3,
                    .mlp = 160,
                    .heads = 8,
                    .kv_heads = 1,
                    .head_dim = 32};
  variant.vocab = 1024;
  variant.action_dim = 32;
  variant.action_horizon = pi05 ? 7 : 10;
  variant.max_token_len = pi05 ? 200 : 48;
  return variant;
}

TEST(SyntheticWeightsTest, TheTinyCheckpointsAreReproducedBitForBit) {
  ExpectEqualToFile("tiny_pi0/model.safetensors", Tiny(false), 1,
                    DType::kBFloat16);
  ExpectEqualToFile("tiny_pi05/model.safetensors", Tiny(true), 2,
                    DType::kBFloat16);
  ExpectEqualToFile("tiny_pi0/float32/model.safetensors", Tiny(false), 1,
                    DType::kFloat32);
}

TEST(SyntheticWeightsTest, TheRuleMakesWhatFindReturns) {
  const Variant variant = test::MicroVariant(true);
  const auto weights = MakeSyntheticWeights(variant, 9, DType::kFloat32);
  ASSERT_TRUE(weights.ok()) << weights.status();
  for (const TensorSpec& spec : TensorSpecs(variant)) {
    const Tensor tensor = (*weights)->Find(spec.name).value();
    const SyntheticRule rule = (*weights)->Rule(spec.name).value();
    for (std::size_t i = 0; i < tensor.data.size() / 4; ++i) {
      float value;
      std::memcpy(&value, tensor.data.data() + 4 * i, 4);
      ASSERT_EQ(value, SyntheticValue(rule, i)) << spec.name << " " << i;
    }
  }
}

TEST(SyntheticWeightsTest, UnknownNamesHaveNeitherTensorNorRule) {
  const auto weights = MakeSyntheticWeights(test::MicroVariant(false), 1);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_TRUE(absl::IsNotFound((*weights)->Find("time_mlp_in.bias").status()));
  EXPECT_EQ((*weights)->Rule("time_mlp_in.bias"), std::nullopt);
}

TEST(SyntheticWeightsTest, TheDigestTellsVariantSeedAndDtypeApart) {
  const auto digest = [](bool pi05, std::uint64_t seed, DType dtype) {
    return MakeSyntheticWeights(test::MicroVariant(pi05), seed, dtype)
        .value()
        ->digest();
  };
  const std::string one = digest(false, 1, DType::kBFloat16);
  EXPECT_EQ(one, digest(false, 1, DType::kBFloat16));
  EXPECT_NE(one, digest(true, 1, DType::kBFloat16));
  EXPECT_NE(one, digest(false, 2, DType::kBFloat16));
  EXPECT_NE(one, digest(false, 1, DType::kFloat32));
}

TEST(SyntheticWeightsTest, ContradictorySizesAreRefused) {
  Variant variant = test::MicroVariant(false);
  variant.expert.depth = 3;
  EXPECT_THAT(MakeSyntheticWeights(variant, 1),
              test::Refuses({"expert.depth"}));
}

TEST(RoundToBFloat16Test, TiesGoToEven) {
  const auto round = [](std::uint32_t bits) {
    return RoundToBFloat16(std::bit_cast<float>(bits));
  };
  EXPECT_EQ(round(0x3f808000), 0x3f80);
  EXPECT_EQ(round(0x3f818000), 0x3f82);
  EXPECT_EQ(round(0x3f808001), 0x3f81);
  EXPECT_EQ(round(0xbf80ffff), 0xbf81);
}

}  // namespace
}  // namespace piserve::checkpoint
