// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace piserve::kernels {

// GELU's tanh form, tanh to 2^-10.9.
__device__ inline float GeluTanh(float x) {
  const float inner = x * (0.7978845608f + 0.0356774081f * x * x);
  float tanh;
  asm("tanh.approx.f32 %0, %1;" : "=f"(tanh) : "f"(inner));
  const float half = 0.5f * x;
  return half + half * tanh;
}

}  // namespace piserve::kernels
