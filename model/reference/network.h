// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "absl/status/statusor.h"
#include "model/checkpoint/weights.h"
#include "model/reference/gemma.h"
#include "model/reference/options.h"
#include "model/reference/suffix.h"
#include "model/reference/trace.h"
#include "model/reference/vision.h"
#include "model/variant.h"

namespace piserve::reference {

// Model inputs of B rows, on the network's device (docs/pi0.md 2.2).
struct Batch {
  at::Tensor pixels;       // uint8 [B, 3, image, image, 3]: base, left, right
  at::Tensor camera_mask;  // bool [B, 3]
  at::Tensor tokens;       // int64 [B, L], 0 where invalid
  at::Tensor token_mask;   // bool [B, L]
  at::Tensor state;        // float64 or float32 [B, A], normalised
  at::Tensor noise;        // fp32 [B, H, A], standard normal

  Batch Row(int index) const;
};

// Image and language tokens in front of the actions.
struct Prefix {
  at::Tensor embeddings;  // [B, S, width]
  at::Tensor pad;         // bool [B, S], true is valid
};

// A Pi0 or Pi0.5 network in plain ATen, stage by stage as docs/pi0.md section 2
// tells it: the definition that faster implementations are compared with.
//
// Methods throw c10::Error as ATen does; the caller stops it. Const methods may
// run from several threads.
// Source: openpi pi0_pytorch.py, PI0Pytorch.sample_actions.
class Network {
 public:
  // Gathers the weights. What Weights::Find returns; INTERNAL if torch throws.
  static absl::StatusOr<std::unique_ptr<Network>> Create(
      const checkpoint::Weights& weights, const Options& options);

  const Variant& variant() const { return variant_; }
  const Options& options() const { return options_; }

  // uint8 [N, image, image, 3] -> [N, tokens, VLM width] (2.3).
  at::Tensor EncodeImages(const at::Tensor& images, const Trace& trace) const;

  // int64 [...] -> [..., VLM width], scaled by the root of the width (2.4).
  at::Tensor EmbedTokens(const at::Tensor& tokens) const;

  // Joins cameras and prompt (2.5). With Layout::kCompact `batch` has one row,
  // and only what is valid is computed and returned.
  Prefix EmbedPrefix(const Batch& batch, const Trace& trace) const;

  // Runs the VLM (2.6).
  PrefixCache Prefill(const Prefix& prefix, const Trace& trace) const;

  // The expert's output after its final norm for embedded suffix tokens (2.11).
  // suffix.tokens: fp32 [B, T, width]. [B, T, width].
  at::Tensor RunExpert(const PrefixCache& prefix,
                       const Suffix::Embedding& suffix,
                       const Trace& trace) const;

  // Velocity at flow time t (2.10, 2.11). x: fp32 [B, H, A]; fp32 [B, H, A].
  at::Tensor DenoiseStep(const PrefixCache& prefix, const at::Tensor& state,
                         const at::Tensor& x, float t,
                         const Trace& trace) const;

  // Integrates from noise (t = 1) to actions (t = 0) in `steps` >= 1 Euler
  // steps (2.12). fp32 [B, H, A].
  at::Tensor Denoise(const PrefixCache& prefix, const at::Tensor& state,
                     const at::Tensor& noise, int steps,
                     const Trace& trace) const;

  // All of the above. With Layout::kCompact row after row; the trace then sees
  // each stage once a row.
  at::Tensor SampleActions(const Batch& batch, int steps,
                           const Trace& trace) const;

 private:
  explicit Network(Parameters& parameters);

  Prefix EmbedCompact(const Batch& row, const Trace& trace) const;
  Prefix EmbedPadded(const Batch& batch, const Trace& trace) const;

  Variant variant_;
  Options options_;
  Vision vision_;
  at::Tensor embedding_;  // [vocab, VLM width]
  Gemma vlm_;
  Gemma expert_;
  Suffix suffix_;
  at::Tensor inverse_frequencies_;
};

}  // namespace piserve::reference
