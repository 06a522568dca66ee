// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/synthetic.h"

#include <string_view>

#include "tests/model/kernels/device.h"

namespace piserve::kernels {
namespace {

using SyntheticTest = KernelTest;

std::uint64_t NameHash(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return hash;
}

float FromBits(std::uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

struct Vector {
  std::string name;
  long last;  // its index; the others are 0 and 1
  std::uint32_t amp;
  float mean;
  std::uint16_t want[3];
};

// docs/synthetic.md, seed 3.
std::vector<Vector> Vectors() {
  const std::string p = "paligemma_with_expert.paligemma.";
  const std::string v = p + "model.vision_tower.vision_model.";
  const std::string t = p + "model.language_model.";
  const std::string e = "paligemma_with_expert.gemma_expert.model.";
  return {
      {p + "lm_head.weight",
       526647295,
       0x3d9cc471,
       0,
       {0x3ba2, 0x3d13, 0xbcb6}},
      {v + "embeddings.patch_embedding.weight",
       677375,
       0x3e124925,
       0,
       {0x3d78, 0xbd46, 0x3c8a}},
      {v + "embeddings.position_embedding.weight",
       294911,
       0x3fddb3d7,
       0,
       {0x3dc9, 0x3f2d, 0xbec8}},
      {v + "encoder.layers.26.layer_norm1.weight",
       1151,
       0x3eb15cac,
       1,
       {0x3f5a, 0x3f82, 0x3f8d}},
      {v + "encoder.layers.0.self_attn.q_proj.weight",
       1327103,
       0x3e36e52e,
       0,
       {0x3d17, 0xbd24, 0x3da7}},
      {v + "encoder.layers.0.self_attn.out_proj.weight",
       1327103,
       0x3dd105ec,
       0,
       {0x3a91, 0x3cd8, 0xbd3b}},
      {t + "layers.0.self_attn.k_proj.weight",
       524287,
       0x3e092be3,
       0,
       {0xbd4f, 0x3d44, 0xbd5e}},
      {t + "layers.17.mlp.down_proj.weight",
       33554431,
       0x3cddb3d7,
       0,
       {0x3bdd, 0xbb49, 0xbabd}},
      {t + "layers.3.input_layernorm.weight",
       2047,
       0x3eb15cac,
       0,
       {0xbde4, 0xbe00, 0xbd18}},
      {e + "layers.0.self_attn.k_proj.weight",
       262143,
       0x3e8a9067,
       0,
       {0xbdb4, 0x3d43, 0xbdfc}},
      {e + "layers.0.self_attn.o_proj.weight",
       2097151,
       0x3e1cc471,
       0,
       {0x3d52, 0x3cd6, 0xbd02}},
      {e + "layers.5.input_layernorm.dense.weight",
       3145727,
       0x3d5db3d7,
       0,
       {0xbca0, 0xbcb8, 0x3cc8}},
      {e + "norm.dense.bias", 3071, 0x3f050581, 0, {0x3e16, 0xbc22, 0x3e7c}},
      {"state_proj.weight", 32767, 0x3f1cc471, 0, {0xbe30, 0xbe23, 0x3e7e}},
      {"action_out_proj.bias", 31, 0x3eb15cac, 0, {0x3e06, 0x3daa, 0x3e02}},
  };
}

TEST(SyntheticNameTest, HashIsTheDocumentedOne) {
  EXPECT_EQ(NameHash("action_out_proj.bias"), 0x5d9e6bea9cf187e1u);
}

TEST_F(SyntheticTest, FillsTheDocumentedVectorsBitForBit) {
  for (const Vector& v : Vectors()) {
    DeviceArray<std::uint16_t> out(v.last + 1);
    ASSERT_EQ(LaunchSyntheticFill(NameHash(v.name), 3, v.mean, FromBits(v.amp),
                                  reinterpret_cast<Bf16*>(out.data()),
                                  v.last + 1, nullptr),
              cudaSuccess);
    const long index[3] = {0, 1, v.last};
    for (int i = 0; i < 3; ++i) {
      std::uint16_t got = 0;
      ASSERT_EQ(cudaMemcpy(&got, out.data() + index[i], sizeof(got),
                           cudaMemcpyDeviceToHost),
                cudaSuccess);
      EXPECT_EQ(got, v.want[i]) << v.name << "[" << index[i] << "]";
    }
  }
}

// docs/synthetic.md's formula on the host.
Bf16 Twin(std::uint64_t hash, std::uint64_t seed, std::uint64_t i, float mean,
          float amp) {
  std::uint64_t z = hash + seed * 0x9E3779B97F4A7C15u + i * 0xD1342543DE82EF95u;
  z ^= z >> 30;
  z *= 0xBF58476D1CE4E5B9u;
  z ^= z >> 27;
  z *= 0x94D049BB133111EBu;
  z ^= z >> 31;
  const float u = static_cast<float>(z >> 40) * 0x1p-24f - 0.5f;
  const volatile float scaled = u * amp;  // no fused multiply-add
  return __float2bfloat16_rn(mean + scaled);
}

TEST_F(SyntheticTest, EveryElementEqualsItsTwinAndNoneBeyondIsTouched) {
  const long count = 1'000'003;
  DeviceArray<Bf16> out(count + 5);
  ASSERT_EQ(LaunchSyntheticFill(NameHash("a.weight"), 7, 1, 0.35f, out.data(),
                                count, nullptr),
            cudaSuccess);
  const auto got = out.Get();
  for (long i = 0; i < count; ++i) {
    const Bf16 want = Twin(NameHash("a.weight"), 7, i, 1, 0.35f);
    ASSERT_EQ(std::memcmp(&got[i], &want, sizeof(want)), 0) << i;
  }
  for (long i = count; i < count + 5; ++i) {
    EXPECT_TRUE(std::isnan(Value(got[i])));
  }
}

}  // namespace
}  // namespace piserve::kernels
