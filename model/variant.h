// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "absl/status/status.h"

namespace piserve {

// Sizes of the SigLIP vision tower. Square images, square patches.
struct VisionSize {
  int width = 0;
  int depth = 0;
  int heads = 0;
  int mlp = 0;
  int patch = 0;  // pixels a side
  int image = 0;  // pixels a side

  int head_dim() const { return width / heads; }
  int tokens() const { return (image / patch) * (image / patch); }
};

// Sizes of one Gemma: the VLM or the action expert.
struct GemmaSize {
  int width = 0;
  int depth = 0;
  int mlp = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
};

// Everything about a Pi0 or Pi0.5 network that fixes the shape of a tensor.
// Data, not types: code reads sizes from here and never asks for a name.
// Source: openpi models/gemma.py get_config, models/pi0_config.py; docs/pi0.md
// section 1.
struct Variant {
  bool pi05 = false;  // adaRMS expert, no state token
  VisionSize vision;
  GemmaSize vlm;
  GemmaSize expert;  // same depth, heads, kv_heads and head_dim as `vlm`
  int vocab = 0;
  int action_dim = 0;      // also the width of the state token's input
  int action_horizon = 0;  // H, actions in a chunk
  int max_token_len = 0;   // L, prompt tokens after padding

  static constexpr int kCameras = 3;  // base, left wrist, right wrist

  // Prefix rows with every camera and a full prompt: S.
  int prefix_len() const { return kCameras * vision.tokens() + max_token_len; }
  // Suffix rows: T. Pi0 has a state token before the actions.
  int suffix_len() const { return action_horizon + (pi05 ? 0 : 1); }
};

// The released sizes: SigLIP So400m/14, gemma_2b, gemma_300m.
Variant Pi0Variant();
Variant Pi05Variant();

// FAILED_PRECONDITION if the sizes contradict each other: a dimension below 1,
// experts whose depth, heads or head_dim differ, an odd head_dim, an image that
// is no multiple of the patch.
absl::Status CheckVariant(const Variant& variant);

// "pi0" or "pi05" and the sizes on one line, for logs.
std::string DebugString(const Variant& variant);

}  // namespace piserve
