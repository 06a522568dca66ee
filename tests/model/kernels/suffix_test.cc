// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/suffix.h"

#include "tests/model/kernels/device.h"

namespace piserve::kernels {
namespace {

using SuffixTest = KernelTest;

StepTable Table(const float* base, const int* step, long stride) {
  StepTable table;
  table.base = base;
  table.step = step;
  table.stride = stride;
  return table;
}

// w x + b over n terms in FP32: off by n * 2^-24 of the terms' sizes.
Expected Dot(const float* w, long w_stride, const std::vector<double>& x,
             double bias) {
  double value = bias, size = std::abs(bias);
  for (std::size_t i = 0; i < x.size(); ++i) {
    value += w[i * w_stride] * x[i];
    size += std::abs(w[i * w_stride] * x[i]);
  }
  return {value, (x.size() + 2) * kFp32Half * size + 1e-30};
}

// SiLU's slope is at most 1.1, its own FP32 error some 2^-21; then one
// rounding.
Expected Activated(Activation activation, Expected sum) {
  if (activation == Activation::kSilu) {
    sum.value = sum.value / (1 + std::exp(-sum.value));
    sum.tolerance = 1.1 * sum.tolerance + 0x1p-20 * std::abs(sum.value);
  }
  sum.tolerance += kBf16Half * (std::abs(sum.value) + sum.tolerance);
  return sum;
}

std::vector<double> Row(const std::vector<float>& x, int row, int size) {
  return {x.begin() + row * size, x.begin() + (row + 1) * size};
}

struct Case {
  int batch, horizon, width, dim;
  int extra;  // tokens of a row before the actions
  Activation activation;
};

std::vector<Case> Cases() {
  return {{1, 50, 1024, 32, 0, Activation::kSilu},
          {1, 50, 1024, 32, 1, Activation::kNone},
          {3, 10, 1024, 32, 1, Activation::kSilu},
          {64, 50, 1024, 32, 0, Activation::kSilu},
          {13, 47, 1024, 32, 1, Activation::kNone},
          {2, 10, 64, 32, 1, Activation::kSilu},
          {90, 7, 64, 32, 0, Activation::kNone}};
}

SuffixTokens TokensOf(const Case& c) {
  SuffixTokens tokens;
  tokens.count = c.horizon;
  tokens.first = c.extra;
  tokens.stride = c.horizon + c.extra;
  return tokens;
}

// Where the i-th action token lies among all.
long IndexOf(const Case& c, int i) {
  return static_cast<long>(i / c.horizon) * (c.horizon + c.extra) + c.extra +
         i % c.horizon;
}

// Elements outside the action tokens must still be the NaN they were born as.
void ExpectTokens(const Case& c, const std::vector<Bf16>& got, int width,
                  const std::vector<Expected>& want) {
  std::vector<Bf16> tokens;
  std::vector<bool> seen(got.size() / width, false);
  for (int i = 0; i < c.batch * c.horizon; ++i) {
    const long at = IndexOf(c, i);
    seen[at] = true;
    tokens.insert(tokens.end(), got.begin() + at * width,
                  got.begin() + (at + 1) * width);
  }
  ExpectWithin(tokens, want, "tokens");
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (seen[i / width]) continue;
    ASSERT_TRUE(std::isnan(Value(got[i]))) << i;
  }
}

TEST_F(SuffixTest, SmallLinearEqualsItsTwin) {
  for (const Case& c : Cases()) {
    const int rows = c.batch * c.horizon;
    const auto x = Normal(rows * c.dim, 1), weight = Normal(c.width * c.dim, 2);
    const auto bias = Normal(3 * c.width, 3);
    DeviceArray<float> x_d(x), weight_d(weight), bias_d(bias);
    DeviceArray<int> step(std::vector<int>{2});
    DeviceArray<Bf16> y(static_cast<std::size_t>(c.batch) *
                        (c.horizon + c.extra) * c.width);
    SmallLinearArgs args;
    args.x = x_d.data();
    args.weight = weight_d.data();
    args.bias = Table(bias_d.data(), step.data(), c.width);
    args.y = y.data();
    args.tokens = TokensOf(c);
    args.rows = rows;
    args.in = c.dim;
    args.out = c.width;
    args.activation = c.activation;
    ASSERT_EQ(LaunchSmallLinear(args, nullptr), cudaSuccess);
    std::vector<Expected> want(static_cast<std::size_t>(rows) * c.width);
    ParallelFor(rows, [&](int r) {
      for (int o = 0; o < c.width; ++o) {
        want[static_cast<std::size_t>(r) * c.width + o] = Activated(
            c.activation, Dot(weight.data() + o * c.dim, 1, Row(x, r, c.dim),
                              bias[2 * c.width + o]));
      }
    });
    ExpectTokens(c, y.Get(), c.width, want);
  }
}

struct StepInputs {
  explicit StepInputs(const Case& c)
      : hidden(NormalBf16(
            static_cast<std::size_t>(c.batch) * (c.horizon + c.extra) * c.width,
            1)),
        weight(Normal(c.dim * c.width, 2, 0.05f)),
        bias(Normal(c.dim, 3)),
        x(Normal(c.batch * c.horizon * c.dim, 4)) {}
  std::vector<Bf16> hidden;
  std::vector<float> weight, bias, x;
  std::vector<float> dt = {-0.5f, -0.1f, -0.25f};
};

// v = W h + b, then x + dt v with two roundings of its own.
void StepTwin(const Case& c, const StepInputs& in, float dt,
              std::vector<Expected>& v, std::vector<Expected>& x) {
  v.resize(in.x.size());
  x.resize(in.x.size());
  ParallelFor(c.batch * c.horizon, [&](int r) {
    std::vector<double> h(c.width);
    for (int i = 0; i < c.width; ++i) {
      h[i] = Value(in.hidden[IndexOf(c, r) * c.width + i]);
    }
    for (int d = 0; d < c.dim; ++d) {
      const int at = r * c.dim + d;
      v[at] = Dot(in.weight.data() + d * c.width, 1, h, in.bias[d]);
      const double moved = in.x[at] + dt * v[at].value;
      x[at] = {moved,
               std::abs(dt) * v[at].tolerance +
                   2 * kFp32Half *
                       (std::abs(in.x[at]) + 2 * std::abs(dt * v[at].value))};
    }
  });
}

TEST_F(SuffixTest, ActionStepEqualsItsTwin) {
  for (const Case& c : Cases()) {
    const StepInputs in(c);
    DeviceArray<Bf16> hidden(in.hidden);
    DeviceArray<float> weight(in.weight), bias(in.bias), x(in.x), dt(in.dt);
    DeviceArray<float> velocity(in.x.size());
    DeviceArray<int> step(std::vector<int>{1});
    ActionStepArgs args;
    args.hidden = hidden.data();
    args.tokens = TokensOf(c);
    args.weight = weight.data();
    args.bias = bias.data();
    args.x = x.data();
    args.velocity = velocity.data();
    args.dt = Table(dt.data(), step.data(), 1);
    args.rows = c.batch * c.horizon;
    args.width = c.width;
    args.dim = c.dim;
    ASSERT_EQ(LaunchActionStep(args, nullptr), cudaSuccess);
    std::vector<Expected> want_v, want_x;
    StepTwin(c, in, in.dt[1], want_v, want_x);
    ExpectWithin(velocity.Get(), want_v, "v");
    ExpectWithin(x.Get(), want_x, "x");
  }
}

}  // namespace
}  // namespace piserve::kernels
