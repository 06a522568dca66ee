// SPDX-License-Identifier: Apache-2.0
#include "model/engine/step_tables.h"

#include <ATen/ops/add.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <stdexcept>
#include <string>

#include "absl/strings/str_cat.h"
#include "model/checkpoint/tensor_spec.h"
#include "model/flow.h"

namespace piserve::engine {
namespace {

at::Tensor Outer(TensorLoader& load, const std::string& name) {
  at::Tensor tensor = load.Outer(name);
  if (!tensor.defined()) throw std::runtime_error(name);
  return tensor;
}

// Time embeddings of all steps, fp32 [rows, width].
at::Tensor TimeRows(const std::vector<float>& times, int width) {
  std::vector<at::Tensor> rows;
  for (const float t : times)
    rows.push_back(at::tensor(TimeEmbedding(t, width)));
  return at::stack(rows).to(at::kCUDA);
}

// W_time t + b + W_action b_action: what the first layer of the action MLP adds
// to W_action W_in x.
at::Tensor ActionBias(const at::Tensor& time, TensorLoader& load) {
  const at::Tensor weight =
      Outer(load, "action_time_mlp_in.weight").to(at::kDouble);
  const at::Tensor bias =
      Outer(load, "action_time_mlp_in.bias").to(at::kDouble);
  const at::Tensor action_bias =
      Outer(load, "action_in_proj.bias").to(at::kDouble);
  const auto width = time.size(1);
  const at::Tensor constant =
      at::add(at::matmul(weight.narrow(1, 0, width), action_bias), bias);
  return at::linear(time.to(at::kDouble), weight.narrow(1, width, width),
                    constant)
      .to(at::kFloat);
}

at::Tensor Condition(const at::Tensor& time, TensorLoader& load) {
  const auto layer = [&](const at::Tensor& x, const std::string& name) {
    return at::silu(at::linear(x, Outer(load, name + ".weight"),
                               Outer(load, name + ".bias")));
  };
  return layer(layer(time, "time_mlp_in"), "time_mlp_out");
}

// Scale, shift and gate of every norm, in the order in which a step meets them:
// fp32 [rows, 2 * depth + 1, 3, width].
at::Tensor Modulation(const Variant& variant, const at::Tensor& cond,
                      TensorLoader& load) {
  const std::string model(checkpoint::kExpertPrefix);
  std::vector<std::string> names;
  for (int i = 0; i < variant.expert.depth; ++i) {
    const std::string layer = absl::StrCat(model, "layers.", i, ".");
    names.push_back(layer + "input_layernorm");
    names.push_back(layer + "post_attention_layernorm");
  }
  names.push_back(model + "norm");
  std::vector<at::Tensor> modulations;
  for (const std::string& name : names) {
    const at::Tensor weight = load.Rounded(name + ".dense.weight");
    const at::Tensor bias = load.Rounded(name + ".dense.bias");
    if (!bias.defined()) throw std::runtime_error(name);
    modulations.push_back(at::linear(cond, weight, bias)
                              .view({cond.size(0), 3, variant.expert.width}));
  }
  return at::stack(modulations, 1).contiguous();
}

}  // namespace

StepTables MakeStepTables(const Variant& variant,
                          const std::vector<int>& step_counts,
                          TensorLoader& load) {
  StepTables tables;
  std::vector<float> times, dts;
  for (const int steps : step_counts) {
    const FlowSteps flow = FlowStepsOf(steps);
    tables.first.push_back(static_cast<int>(times.size()));
    times.insert(times.end(), flow.times.begin(), flow.times.end());
    dts.insert(dts.end(), flow.times.size(), flow.dt);
  }
  tables.dt = at::tensor(dts).to(at::kCUDA);
  const at::Tensor time = TimeRows(times, variant.expert.width);
  if (variant.pi05) {
    tables.action_bias = Outer(load, "action_in_proj.bias").unsqueeze(0);
    tables.modulation = Modulation(variant, Condition(time, load), load);
  } else {
    tables.action_bias = ActionBias(time, load);
  }
  return tables;
}

}  // namespace piserve::engine
