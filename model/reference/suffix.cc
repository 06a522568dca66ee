// SPDX-License-Identifier: Apache-2.0
#include "model/reference/suffix.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>

#include "model/reference/ops.h"

namespace piserve::reference {

Suffix::Suffix(Parameters& parameters)
    : pi05_(parameters.weights().variant().pi05),
      width_(parameters.weights().variant().expert.width),
      action_in_(GetLinear(parameters, "action_in_proj")),
      action_out_(GetLinear(parameters, "action_out_proj")) {
  if (pi05_) {
    time_in_ = GetLinear(parameters, "time_mlp_in");
    time_out_ = GetLinear(parameters, "time_mlp_out");
    return;
  }
  state_ = GetLinear(parameters, "state_proj");
  time_in_ = GetLinear(parameters, "action_time_mlp_in");
  time_out_ = GetLinear(parameters, "action_time_mlp_out");
}

Suffix::Embedding Suffix::Embed(const at::Tensor& state, const at::Tensor& x,
                                float t, const Trace& trace) const {
  const auto batch = x.size(0);
  const at::Tensor time =
      TimeEmbedding(t, width_, x.device()).expand({batch, width_});
  Record(trace, time, "time_emb");
  const at::Tensor actions = action_in_(x);
  if (pi05_) {
    const at::Tensor cond = at::silu(time_out_(at::silu(time_in_(time))));
    Record(trace, cond, "adarms_cond");
    return {actions, cond};
  }
  const at::Tensor tiled = time.unsqueeze(1).expand({batch, x.size(1), width_});
  const at::Tensor mixed =
      time_out_(at::silu(time_in_(at::cat({actions, tiled}, -1))));
  return {at::cat({state_(state).unsqueeze(1), mixed}, 1), {}};
}

at::Tensor Suffix::Velocity(const at::Tensor& expert_out,
                            int action_horizon) const {
  const at::Tensor actions =
      expert_out.narrow(1, expert_out.size(1) - action_horizon, action_horizon);
  return action_out_(actions.to(at::kFloat));
}

}  // namespace piserve::reference
