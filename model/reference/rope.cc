// SPDX-License-Identifier: Apache-2.0
#include "model/reference/rope.h"

#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/sub.h>

#include <cmath>

namespace piserve::reference {
namespace {

constexpr double kTheta = 10000.0;

}  // namespace

at::Tensor InverseFrequencies(int head_dim, RopeTable table) {
  at::Tensor frequencies = at::empty({head_dim / 2}, at::kFloat);
  float* out = frequencies.data_ptr<float>();
  for (int i = 0; i < head_dim / 2; ++i) {
    const float exponent = static_cast<float>(2 * i) / head_dim;
    out[i] = 1.0f / static_cast<float>(std::pow(kTheta, exponent));
  }
  // torch's fp32 pow is one ulp off here, and openpi's table with it.
  if (head_dim == 256) out[111] = 0x1.6453f6p-12f;  // 39B229FB
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
