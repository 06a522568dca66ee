// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "tests/model/kernels/device.h"

// Scalar twins in double precision, with how far a kernel may be from them.
namespace piserve::kernels {

// One query's answer. Three things part the kernel from exact arithmetic:
//   p rounded to bf16: at most 2^-8 of each term, so 2^-8 of A = sum p|v| / l;
//   where l sums the rounded p (vision), 2^-8 of sum p|v - result| / l, which
//   values of either sign make about A, and one weight above all makes less;
//   the result rounded to bf16: 2^-8 of it;
//   scores in FP32, C terms: an error of C * 2^-24 * sum |q k| * scale, which
//   moves numerator and denominator by e^that - 1 each; exp2 and the sums over
//   keys are of the order of 2^-22 and take the doubled score term's slack.
inline void Attend(const std::vector<double>& q, const std::vector<double>& k,
                   const std::vector<double>& v, int visible, Expected* out) {
  const int dim = static_cast<int>(q.size());
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  std::vector<double> p(visible);
  double maximum = -1e300, reach = 0, total = 0;
  for (int j = 0; j < visible; ++j) {
    double sum = 0, size = 0;
    for (int d = 0; d < dim; ++d) {
      const double term = q[d] * k[static_cast<long>(j) * dim + d];
      sum += term;
      size += std::abs(term);
    }
    p[j] = sum * scale;
    maximum = std::max(maximum, p[j]);
    reach = std::max(reach, size * scale);
  }
  for (double& score : p) total += score = std::exp(score - maximum);
  std::vector<double> value(dim, 0), size(dim, 0);
  for (int j = 0; j < visible; ++j) {
    for (int d = 0; d < dim; ++d) {
      const double term = p[j] / total * v[static_cast<long>(j) * dim + d];
      value[d] += term;
      size[d] += std::abs(term);
    }
  }
  const double score_error = dim * kFp32Half * reach + 0x1p-20;
  for (int d = 0; d < dim; ++d) {
    out[d] = {value[d], kBf16Half * (size[d] + std::abs(value[d])) +
                            4 * score_error * size[d] + 1e-30};
  }
}

// A dot product and how far FP32 sums in any order may be from it.
inline Expected Dot(const Bf16* x, const Bf16* w, int size) {
  double value = 0, total = 0;
  for (int i = 0; i < size; ++i) {
    const double term = Value(x[i]) * Value(w[i]);
    value += term;
    total += std::abs(term);
  }
  return {value, size * kFp32Half * total};
}

inline std::vector<double> Widen(const Bf16* from, std::size_t count) {
  std::vector<double> to(count);
  for (std::size_t i = 0; i < count; ++i) to[i] = Value(from[i]);
  return to;
}

// One row's norm as the double-precision twin of
//   h = (x - mean) * rsqrt(mean((x - mean)^2) + 1e-6) * scale + shift.
// FP32 sums of `width` terms over a tree of depth below 32 + 13 put the
// statistics off by less than 2^-18; so is each factor behind them, and the
// difference x - mean by that of the row's largest value. One rounding to bf16.
inline void NormRow(const Bf16* x, int width, bool centre, const float* scale,
                    float offset, const float* shift, Expected* out) {
  double mean = 0, square = 0, largest = 0;
  for (int i = 0; i < width && centre; ++i) mean += Value(x[i]) / width;
  for (int i = 0; i < width; ++i) {
    square += std::pow(Value(x[i]) - mean, 2) / width;
    largest = std::max(largest, std::abs(Value(x[i])));
  }
  const double inverse = 1 / std::sqrt(square + 1e-6);
  for (int i = 0; i < width; ++i) {
    const double factor = inverse * (offset + scale[i]);
    const double add = shift == nullptr ? 0 : shift[i];
    const double value = (Value(x[i]) - mean) * factor + add;
    const double terms =
        largest * std::abs(factor) + std::abs(add) + std::abs(value);
    out[i] = {value, kBf16Half * std::abs(value) + 0x1p-18 * terms + 1e-30};
  }
}

// Products and sum in FP32, one rounding.
inline Expected Rotate(double x1, double c, double x2, double s) {
  const double value = x1 * c + x2 * s;
  return {value, kBf16Half * std::abs(value) +
                     0x1p-22 * (std::abs(x1 * c) + std::abs(x2 * s)) + 1e-30};
}

// tanh.approx.f32, as PTX states it.
inline constexpr double kTanhError = 0x1p-10;

// x / (1 + e^-2u) is 0.5 x (1 + tanh u) without the cancellation, u = sqrt(2 /
// pi) (x + 0.044715 x^3). In FP32 the exponent's relative error of 2^-22 is
// that of e^-2u times 2u, at most 88 where the result is not 0. One rounding.
inline Expected Geglu(double gate, double up) {
  const double twice =
      2 * std::sqrt(2 / M_PI) * (gate + 0.044715 * gate * gate * gate);
  const double value = gate / (1 + std::exp(-twice)) * up;
  return {value, (kBf16Half + 90 * 0x1p-22) * std::abs(value) + 1e-35};
}

}  // namespace piserve::kernels
