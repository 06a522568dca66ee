// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "model/reference/parameters.h"
#include "model/reference/trace.h"
#include "model/variant.h"

namespace piserve::reference {

// Weight [out, in] and bias [out].
struct Linear {
  at::Tensor weight;
  at::Tensor bias;

  at::Tensor operator()(const at::Tensor& x) const;
};

// `name`.weight and `name`.bias.
Linear GetLinear(Parameters& parameters, const std::string& name);

// SigLIP and the projector: from pixels to prefix tokens (docs/pi0.md 2.3).
// Source: openpi transformers_replace modeling_siglip.py;
// modeling_paligemma.py, get_image_features.
class Vision {
 public:
  Vision(Parameters& parameters, const VisionSize& size);

  // images: uint8 [N, image, image, 3], RGB. [N, tokens, VLM width], not
  // scaled.
  at::Tensor Encode(const at::Tensor& images, const Trace& trace) const;

 private:
  struct Layer {
    Linear norm1, q, k, v, out, norm2, fc1, fc2;  // a norm has the same two
  };

  at::Tensor Embed(const at::Tensor& images) const;
  at::Tensor Attend(const Layer& layer, const at::Tensor& x) const;

  VisionSize size_;
  at::ScalarType dtype_;
  Linear patch_;
  at::Tensor position_;
  std::vector<Layer> layers_;
  Linear post_norm_;
  Linear projector_;
};

}  // namespace piserve::reference
