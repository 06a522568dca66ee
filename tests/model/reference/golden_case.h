// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/checkpoint/weights.h"
#include "model/reference/network.h"
#include "tests/support/golden.h"

// The model goldens as tensors: weights, inputs, and what openpi computed.
namespace piserve::reference {

// A checkpoint below tests/golden with the sizes of its model's variant.json:
// ("tiny_pi0", "model.safetensors").
std::shared_ptr<const checkpoint::Weights> GoldenWeights(
    const std::string& model, const std::string& file);

// The weights that the goldens of a mode were made from: the F32 file for FP32
// mode of pi0, otherwise the BF16 file.
std::shared_ptr<const checkpoint::Weights> GoldenWeights(
    const std::string& model, Precision precision);

std::unique_ptr<Network> GoldenNetwork(const std::string& model,
                                       const Options& options);

// A tensor of a golden file in the dtype that it is stored in.
at::Tensor GoldenTensor(const test::GoldenTensors& file,
                        const std::string& name);

// <model>/cases/<name>.{inputs,fp32,bf16}.safetensors.
struct GoldenCase {
  GoldenCase(const std::string& model, const std::string& name,
             Precision precision);

  at::Tensor Get(const std::string& tensor) const {
    return GoldenTensor(expected, tensor);
  }

  Batch batch;
  test::GoldenTensors expected;
};

Batch GoldenInputs(const std::string& model, const std::string& name);

// Distance of b from a golden tensor, relative to the golden's root mean
// square (tests/golden/MANIFEST.md).
struct Distance {
  double max = 0;
  double mean = 0;
};
Distance DistanceOf(const at::Tensor& golden, const at::Tensor& b);

// Every stage that a network showed, in order of appearance.
struct Stages {
  std::map<std::string, std::vector<at::Tensor>> seen;

  Trace trace() {
    return [this](const std::string& stage, const at::Tensor& value) {
      seen[stage].push_back(value);
    };
  }
};

}  // namespace piserve::reference
