// SPDX-License-Identifier: Apache-2.0
#include "model/variant.h"

#include <functional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace piserve {
namespace {

using ::testing::HasSubstr;

// docs/pi0.md 1.1 to 1.3.
TEST(VariantTest, ReleasedSizesAreOpenpis) {
  const Variant pi0 = Pi0Variant();
  EXPECT_TRUE(CheckVariant(pi0).ok());
  EXPECT_EQ(pi0.vision.head_dim(), 72);
  EXPECT_EQ(pi0.vision.tokens(), 256);
  EXPECT_EQ(pi0.prefix_len(), 816);
  EXPECT_EQ(pi0.suffix_len(), 51);
  const Variant pi05 = Pi05Variant();
  EXPECT_TRUE(CheckVariant(pi05).ok());
  EXPECT_EQ(pi05.prefix_len(), 968);
  EXPECT_EQ(pi05.suffix_len(), 50);
}

TEST(VariantTest, DebugStringIsOneLineWithEverySize) {
  EXPECT_EQ(DebugString(Pi0Variant()),
            "pi0 vision {width 1152, depth 27, heads 16, mlp 4304, patch 14, "
            "image 224} vlm {width 2048, depth 18, mlp 16384, heads 8, "
            "kv_heads 1, head_dim 256} expert {width 1024, depth 18, mlp 4096, "
            "heads 8, kv_heads 1, head_dim 256} vocab 257152 action_dim 32 "
            "action_horizon 50 max_token_len 48");
}

struct BadCase {
  const char* field;
  std::function<void(Variant&)> change;
};

std::vector<BadCase> BadCases() {
  return {
      {"vision.width", [](Variant& v) { v.vision.width = 0; }},
      {"vision.depth", [](Variant& v) { v.vision.depth = 1025; }},
      {"vision.heads", [](Variant& v) { v.vision.heads = 5; }},
      {"vision.mlp", [](Variant& v) { v.vision.mlp = -1; }},
      {"vision.patch", [](Variant& v) { v.vision.patch = 0; }},
      {"vision.image", [](Variant& v) { v.vision.image = 225; }},
      {"vision.image", [](Variant& v) { v.vision.image = 1 << 30; }},
      {"vlm.width", [](Variant& v) { v.vlm.width = 0; }},
      {"vlm.kv_heads", [](Variant& v) { v.vlm.kv_heads = 3; }},
      {"vlm.head_dim",
       [](Variant& v) { v.vlm.head_dim = v.expert.head_dim = 255; }},
      {"vlm.heads * head_dim",
       [](Variant& v) { v.vlm.heads = v.vlm.head_dim = 1 << 20; }},
      {"expert.depth", [](Variant& v) { v.expert.depth = 17; }},
      {"expert.heads", [](Variant& v) { v.expert.heads = 4; }},
      {"expert.kv_heads", [](Variant& v) { v.expert.kv_heads = 2; }},
      {"expert.head_dim", [](Variant& v) { v.expert.head_dim = 128; }},
      {"expert.width", [](Variant& v) { v.expert.width = 63; }},
      {"expert.width", [](Variant& v) { v.expert.width = 2; }},
      {"expert.mlp", [](Variant& v) { v.expert.mlp = 0; }},
      {"vocab", [](Variant& v) { v.vocab = 0; }},
      {"action_dim", [](Variant& v) { v.action_dim = 0; }},
      {"action_horizon", [](Variant& v) { v.action_horizon = 0; }},
      {"max_token_len", [](Variant& v) { v.max_token_len = 0; }},
  };
}

TEST(VariantTest, EverySizeThatCannotBeIsNamed) {
  for (const BadCase& bad : BadCases()) {
    Variant variant = Pi05Variant();
    bad.change(variant);
    const absl::Status status = CheckVariant(variant);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string(bad.field) + ": got "));
  }
}

}  // namespace
}  // namespace piserve
