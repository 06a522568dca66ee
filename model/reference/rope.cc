// SPDX-License-Identifier: Apache-2.0
#include "model/reference/rope.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/div.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sub.h>

namespace piserve::reference {
namespace {

constexpr double kTheta = 10000.0;

}  // namespace

at::Tensor InverseFrequencies(int head_dim, RopeTable table) {
  const at::Tensor exponent =
      at::div(at::arange(0, head_dim, 2, at::kLong).to(at::kFloat), head_dim);
  // torch's own fp32 pow on the CPU: openpi's table has its last bits.
  at::Tensor frequencies = at::reciprocal(at::pow(kTheta, exponent));
  // Here its vector code is one ulp off, and processors without it are not.
  if (head_dim == 256) frequencies[111] = 0x1.6453f6p-12;  // 39B229FB
  if (table == RopeTable::kExact) return frequencies;
  return frequencies.to(at::kBFloat16).to(at::kFloat);
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
