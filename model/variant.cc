// SPDX-License-Identifier: Apache-2.0
#include "model/variant.h"

#include <cstdint>

#include "absl/strings/str_cat.h"

namespace piserve {
namespace {

// Far beyond any model of this kind; keeps every product of two sizes inside 64
// bits and every row count inside int.
constexpr int kMaxSize = 1 << 20;
constexpr int kMaxVocab = 1 << 24;
constexpr int kMaxDepth = 1024;
constexpr int kMaxImage = 4096;

absl::Status Refuse(absl::string_view name, absl::string_view got,
                    absl::string_view want) {
  return absl::FailedPreconditionError(
      absl::StrCat("variant: ", name, ": got ", got, ", want ", want));
}

absl::Status CheckRange(absl::string_view name, int value, int max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return Refuse(name, absl::StrCat(value), absl::StrCat("1 to ", max));
}

absl::Status CheckSame(absl::string_view name, int vlm, int expert) {
  if (vlm == expert) return absl::OkStatus();
  return Refuse(absl::StrCat("expert.", name), absl::StrCat(expert),
                absl::StrCat(vlm, " as in the vlm"));
}

absl::Status First(std::initializer_list<absl::Status> statuses) {
  for (const absl::Status& status : statuses) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckVision(const VisionSize& vision) {
  absl::Status status =
      First({CheckRange("vision.width", vision.width, kMaxSize),
             CheckRange("vision.depth", vision.depth, kMaxDepth),
             CheckRange("vision.heads", vision.heads, kMaxSize),
             CheckRange("vision.mlp", vision.mlp, kMaxSize),
             CheckRange("vision.patch", vision.patch, kMaxImage),
             CheckRange("vision.image", vision.image, kMaxImage)});
  if (!status.ok()) return status;
  if (vision.width % vision.heads != 0) {
    return Refuse("vision.heads", absl::StrCat(vision.heads),
                  absl::StrCat("a divisor of the width ", vision.width));
  }
  if (vision.image % vision.patch != 0) {
    return Refuse("vision.image", absl::StrCat(vision.image),
                  absl::StrCat("a multiple of the patch ", vision.patch));
  }
  return absl::OkStatus();
}

absl::Status CheckGemma(absl::string_view name, const GemmaSize& size) {
  const auto range = [&](absl::string_view field, int value, int max) {
    return CheckRange(absl::StrCat(name, ".", field), value, max);
  };
  absl::Status status = First({range("width", size.width, kMaxSize),
                               range("depth", size.depth, kMaxDepth),
                               range("mlp", size.mlp, kMaxSize),
                               range("heads", size.heads, kMaxSize),
                               range("kv_heads", size.kv_heads, kMaxSize),
                               range("head_dim", size.head_dim, kMaxSize)});
  if (!status.ok()) return status;
  const std::int64_t attention = std::int64_t{size.heads} * size.head_dim;
  if (attention > kMaxSize) {
    return Refuse(absl::StrCat(name, ".heads * head_dim"),
                  absl::StrCat(attention), absl::StrCat("1 to ", kMaxSize));
  }
  if (size.heads % size.kv_heads != 0) {
    return Refuse(absl::StrCat(name, ".kv_heads"), absl::StrCat(size.kv_heads),
                  absl::StrCat("a divisor of the heads ", size.heads));
  }
  if (size.head_dim % 2 != 0) {
    return Refuse(absl::StrCat(name, ".head_dim"), absl::StrCat(size.head_dim),
                  "an even number (RoPE)");
  }
  return absl::OkStatus();
}

Variant Released() {
  Variant variant;
  variant.vision = {.width = 1152,
                    .depth = 27,
                    .heads = 16,
                    .mlp = 4304,
                    .patch = 14,
                    .image = 224};
  variant.vlm = {.width = 2048,
                 .depth = 18,
                 .mlp = 16384,
                 .heads = 8,
                 .kv_heads = 1,
                 .head_dim = 256};
  variant.expert = {.width = 1024,
                    .depth = 18,
                    .mlp = 4096,
                    .heads = 8,
                    .kv_heads = 1,
                    .head_dim = 256};
  variant.vocab = 257152;
  variant.action_dim = 32;
  variant.action_horizon = 50;
  return variant;
}

std::string Describe(const GemmaSize& size) {
  return absl::StrCat("{width ", size.width, ", depth ", size.depth, ", mlp ",
                      size.mlp, ", heads ", size.heads, ", kv_heads ",
                      size.kv_heads, ", head_dim ", size.head_dim, "}");
}

std::string Describe(const VisionSize& size) {
  return absl::StrCat("{width ", size.width, ", depth ", size.depth, ", heads ",
                      size.heads, ", mlp ", size.mlp, ", patch ", size.patch,
                      ", image ", size.image, "}");
}

}  // namespace

Variant Pi0Variant() {
  Variant variant = Released();
  variant.pi05 = false;
  variant.max_token_len = 48;
  return variant;
}

Variant Pi05Variant() {
  Variant variant = Released();
  variant.pi05 = true;
  variant.max_token_len = 200;
  return variant;
}

absl::Status CheckVariant(const Variant& variant) {
  absl::Status status = First(
      {CheckVision(variant.vision), CheckGemma("vlm", variant.vlm),
       CheckGemma("expert", variant.expert),
       CheckRange("vocab", variant.vocab, kMaxVocab),
       CheckRange("action_dim", variant.action_dim, kMaxSize),
       CheckRange("action_horizon", variant.action_horizon, kMaxSize),
       CheckRange("max_token_len", variant.max_token_len, kMaxSize),
       CheckSame("depth", variant.vlm.depth, variant.expert.depth),
       CheckSame("heads", variant.vlm.heads, variant.expert.heads),
       CheckSame("kv_heads", variant.vlm.kv_heads, variant.expert.kv_heads),
       CheckSame("head_dim", variant.vlm.head_dim, variant.expert.head_dim)});
  if (!status.ok()) return status;
  // The time embedding spreads its periods over width / 2 - 1 intervals.
  if (variant.expert.width < 4 || variant.expert.width % 2 != 0) {
    return Refuse("expert.width", absl::StrCat(variant.expert.width),
                  "an even number of at least 4 (time embedding)");
  }
  return absl::OkStatus();
}

std::string DebugString(const Variant& variant) {
  return absl::StrCat(variant.pi05 ? "pi05" : "pi0", " vision ",
                      Describe(variant.vision), " vlm ", Describe(variant.vlm),
                      " expert ", Describe(variant.expert), " vocab ",
                      variant.vocab, " action_dim ", variant.action_dim,
                      " action_horizon ", variant.action_horizon,
                      " max_token_len ", variant.max_token_len);
}

}  // namespace piserve
