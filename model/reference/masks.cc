// SPDX-License-Identifier: Apache-2.0
#include "model/reference/masks.h"

#include <ATen/ops/bitwise_and.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/le.h>
#include <ATen/ops/masked_fill.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/zeros.h>

namespace piserve::reference {

at::Tensor Positions(const at::Tensor& pad) {
  return at::sub(at::cumsum(pad, /*dim=*/1), 1);
}

at::Tensor AttentionMask(const at::Tensor& pad, const at::Tensor& block) {
  const at::Tensor index = at::cumsum(block, /*dim=*/0);
  const at::Tensor reached =
      at::le(index.unsqueeze(0), index.unsqueeze(1)).unsqueeze(0);
  const at::Tensor both_valid =
      at::bitwise_and(pad.unsqueeze(1), pad.unsqueeze(2));
  return at::bitwise_and(reached, both_valid);
}

at::Tensor SuffixMask(const at::Tensor& prefix_pad, int action_horizon,
                      int suffix_len) {
  const auto batch = prefix_pad.size(0);
  at::Tensor block =
      at::zeros({suffix_len}, prefix_pad.options().dtype(at::kLong));
  block.narrow(0, 0, suffix_len - action_horizon + 1).fill_(1);
  const at::Tensor own =
      AttentionMask(at::ones({batch, suffix_len}, prefix_pad.options()), block);
  const at::Tensor prefix =
      prefix_pad.unsqueeze(1).expand({batch, suffix_len, prefix_pad.size(1)});
  return at::cat({prefix, own}, -1);
}

at::Tensor AdditiveMask(const at::Tensor& allowed) {
  constexpr double kMasked = -2.3819763e38;
  return at::zeros(allowed.sizes(), allowed.options().dtype(at::kFloat))
      .masked_fill(allowed.logical_not(), kMasked)
      .unsqueeze(1);
}

}  // namespace piserve::reference
