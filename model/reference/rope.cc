// SPDX-License-Identifier: Apache-2.0
#include "model/reference/rope.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/tensor.h>

namespace piserve::reference {
at::Tensor FrequencyTensor(int head_dim, RopeTable table) {
  return at::tensor(InverseFrequencies(head_dim, table));
}

Rotation RotationAt(const at::Tensor& positions,
                    const at::Tensor& inverse_frequencies,
                    at::ScalarType dtype) {
  const at::Tensor angle =
      at::mul(positions.to(at::kFloat).unsqueeze(-1), inverse_frequencies)
          .unsqueeze(1);
  return {at::cos(angle).to(dtype), at::sin(angle).to(dtype)};
}

at::Tensor ApplyRope(const at::Tensor& x, const Rotation& rotation) {
  const at::Tensor first = x.narrow(-1, 0, x.size(-1) / 2);
  const at::Tensor second = x.narrow(-1, x.size(-1) / 2, x.size(-1) / 2);
  const auto& [cos, sin] = rotation;
  return at::cat({at::sub(at::mul(first, cos), at::mul(second, sin)),
                  at::add(at::mul(second, cos), at::mul(first, sin))},
                 -1);
}

}  // namespace piserve::reference
