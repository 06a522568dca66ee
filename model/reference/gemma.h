// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/reference/parameters.h"
#include "model/reference/rope.h"
#include "model/reference/trace.h"
#include "model/variant.h"

namespace piserve::reference {

// Keys (after RoPE) and values of every layer of the VLM over the prefix.
struct PrefixCache {
  std::vector<at::Tensor> keys;    // depth x [B, K, S, C]
  std::vector<at::Tensor> values;  // depth x [B, K, S, C]
  at::Tensor pad;                  // bool [B, S], true is valid
};

// Where a sequence stands and what it may see.
struct Sequence {
  Rotation rotation;
  at::Tensor mask;  // fp32 [B, 1, Q, keys], added; undefined: sees everything
};

// One Gemma: the VLM over the prefix, or the action expert over the suffix.
// Source: openpi gemma_pytorch.py; transformers_replace modeling_gemma.py
// (docs/pi0.md 2.6, 2.11).
class Gemma {
 public:
  enum class Role { kVlm, kExpert };

  // `pi05` in the weights' variant gives the expert its adaptive norms.
  Gemma(Parameters& parameters, Role role);

  // Runs the VLM for its keys and values alone: of the last layer nothing else
  // is computed. x: [B, S, width]. PrefixCache::pad is left to the caller.
  PrefixCache Prefill(at::Tensor x, const Sequence& sequence,
                      const Trace& trace) const;

  // Runs the expert against a prefix, which it does not change, to its final
  // norm. x: [B, T, width]; cond: fp32 [B, width] or undefined (pi0).
  at::Tensor Denoise(at::Tensor x, const at::Tensor& cond,
                     const PrefixCache& prefix, const Sequence& sequence,
                     const Trace& trace) const;

 private:
  // RMSNorm's weight (1 + w), or the map from cond to scale, shift and gate.
  struct Norm {
    at::Tensor weight = {};
    at::Tensor dense_weight = {};
    at::Tensor dense_bias = {};
  };
  struct Layer {
    Norm input_norm;
    at::Tensor q, k, v, o;
    Norm post_norm;
    at::Tensor gate, up, down;
  };
  struct Normed {
    at::Tensor hidden;
    at::Tensor gate;  // undefined without adaptive norms
  };

  Norm GetNorm(Parameters& parameters, const std::string& name) const;
  Normed Apply(const Norm& norm, const at::Tensor& x, const at::Tensor& cond,
               const Trace& trace, const std::string& stage) const;
  at::Tensor Keys(const Layer& layer, const at::Tensor& h,
                  const Rotation& rotation) const;
  at::Tensor Values(const Layer& layer, const at::Tensor& h) const;
  at::Tensor Attend(const Layer& layer, const at::Tensor& h,
                    const at::Tensor& keys, const at::Tensor& values,
                    const Sequence& sequence) const;
  at::Tensor Mlp(const Layer& layer, const at::Tensor& h) const;

  GemmaSize size_;
  bool adaptive_;
  std::vector<Layer> layers_;
  Norm final_norm_;  // the expert's; nobody reads the VLM's
};

}  // namespace piserve::reference
