// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/suffix.h"

#include <limits>

#include "model/kernels/wave.h"
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
          {8, 50, 1024, 32, 0, Activation::kSilu},
          {64, 50, 1024, 32, 0, Activation::kSilu},
          {64, 50, 1024, 32, 1, Activation::kNone},
          {13, 47, 1024, 32, 1, Activation::kNone},
          {2, 10, 64, 32, 1, Activation::kSilu},
          {90, 7, 64, 32, 0, Activation::kNone},
          {1, 1, 8, 1, 0, Activation::kNone},
          {3, 5, 24, 7, 2, Activation::kSilu},
          {2, 9, 1032, 33, 1, Activation::kSilu},
          {30, 50, 2056, 61, 0, Activation::kNone}};
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
    const auto x = Normal(rows * c.dim, 1), weight = Normal(c.dim * c.width, 2);
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
            c.activation, Dot(weight.data() + o, c.width, Row(x, r, c.dim),
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

// Sums as they come to SiLU, from one end of the numbers to the other.
TEST_F(SuffixTest, SiluOfExtremesEqualsItsTwin) {
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> sums = {
      infinity, -infinity, std::nanf(""), 3e38f, -3e38f, 1e4f, -1e4f,
      100,      -100,      -89,           -88,   -87,    -80,  -20,
      20,       0,         -0.0f};
  const int rows = static_cast<int>(sums.size());
  DeviceArray<float> x(sums), weight(std::vector<float>(4, 1));
  DeviceArray<float> bias(std::vector<float>(4, 0));
  DeviceArray<Bf16> y(sums.size() * 4);
  SmallLinearArgs args;
  args.x = x.data();
  args.weight = weight.data();
  args.bias.base = bias.data();
  args.y = y.data();
  args.tokens.count = args.tokens.stride = rows;
  args.rows = rows;
  args.in = 1;
  args.out = 4;
  args.activation = Activation::kSilu;
  ASSERT_EQ(LaunchSmallLinear(args, nullptr), cudaSuccess);
  const auto got = y.Get();
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double sum = sums[i / 4], value = Value(got[i]);
    const double want = sum / (1 + std::exp(-sum));
    if (std::isnan(want) || std::isinf(want)) {
      EXPECT_EQ(std::isnan(value), std::isnan(want)) << sum;
      EXPECT_EQ(std::isinf(value), std::isinf(want)) << sum;
    } else {
      // Below 1e-36 zero will do.
      EXPECT_NEAR(value, want, 1.01 * kBf16Half * std::abs(want) + 1e-36)
          << sum;
    }
  }
}

// The first `rows` tokens, or those from `first` on, on their own.
struct Part {
  int first, rows;
};

constexpr Case kMany{64, 50, 1024, 32, 0, Activation::kSilu};

std::vector<Part> Parts() {
  return {{0, 1},    {0, 50},      {0, 400},  {1, 3},    {57, 1},   {123, 50},
          {999, 13}, {2000, 1200}, {3199, 1}, {3, 3197}, {17, 264}, {500, 528}};
}

template <typename T>
std::vector<T> Slice(const std::vector<T>& all, const Part& part, int width) {
  const auto begin = all.begin() + static_cast<long>(part.first) * width;
  return {begin, begin + static_cast<long>(part.rows) * width};
}

TEST_F(SuffixTest, ATokensProjectionDoesNotDependOnTheOthers) {
  const int width = kMany.width, dim = kMany.dim;
  const auto x = Normal(3200 * dim, 1);
  DeviceArray<float> x_d(x), weight(Normal(dim * width, 2));
  DeviceArray<float> bias(Normal(width, 3));
  const auto run = [&](const Part& part) {
    DeviceArray<Bf16> y(static_cast<std::size_t>(part.rows) * width);
    SmallLinearArgs args;
    args.x = x_d.data() + part.first * dim;
    args.weight = weight.data();
    args.bias.base = bias.data();
    args.y = y.data();
    args.tokens.count = args.tokens.stride = part.rows;
    args.rows = part.rows;
    args.in = dim;
    args.out = width;
    args.activation = kMany.activation;
    EXPECT_EQ(LaunchSmallLinear(args, nullptr), cudaSuccess);
    return y.Get();
  };
  const auto all = run({0, 3200});
  for (const Part& part : Parts()) {
    EXPECT_TRUE(SameBits(run(part), Slice(all, part, width)))
        << part.rows << " from " << part.first;
  }
}

TEST_F(SuffixTest, ATokensStepDoesNotDependOnTheOthers) {
  const StepInputs in(kMany);
  const int width = kMany.width, dim = kMany.dim;
  DeviceArray<Bf16> hidden(in.hidden);
  DeviceArray<float> weight(in.weight), bias(in.bias), dt(in.dt);
  const auto run = [&](const Part& part) {
    DeviceArray<float> x(Slice(in.x, part, dim));
    ActionStepArgs args;
    args.hidden = hidden.data() + static_cast<long>(part.first) * width;
    args.tokens.count = args.tokens.stride = part.rows;
    args.weight = weight.data();
    args.bias = bias.data();
    args.x = x.data();
    args.dt.base = dt.data();
    args.rows = part.rows;
    args.width = width;
    args.dim = dim;
    EXPECT_EQ(LaunchActionStep(args, nullptr), cudaSuccess);
    return x.Get();
  };
  const auto all = run({0, 3200});
  for (const Part& part : Parts()) {
    EXPECT_TRUE(SameBits(run(part), Slice(all, part, dim)))
        << part.rows << " from " << part.first;
  }
}

// As in a call: the step, the index, the next step's input, eight times over;
// captured, and with a wait after each.
TEST_F(SuffixTest, ACapturedChainEqualsTheSerialOne) {
  constexpr int kSteps = 8;
  const Case c{8, 50, 1024, 32, 0, Activation::kSilu};
  const StepInputs in(c);
  DeviceArray<float> weight(in.weight), bias(in.bias);
  DeviceArray<float> in_weight(Normal(c.dim * c.width, 5, 0.2f));
  DeviceArray<float> offset(Normal(kSteps * c.width, 6));
  DeviceArray<float> dt(Normal(kSteps, 7, 0.1f, -0.3f));
  const auto run = [&](bool captured) {
    DeviceArray<Bf16> hidden(in.hidden);
    DeviceArray<float> x(in.x);
    DeviceArray<int> step(std::vector<int>{0});
    StepTable dts = Table(dt.data(), step.data(), 1);
    StepTable offsets = Table(offset.data(), step.data(), c.width);
    cudaStream_t stream;
    EXPECT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    const auto after = [&](cudaError_t error) {
      EXPECT_EQ(error, cudaSuccess);
      if (captured) return;
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    };
    if (captured) {
      EXPECT_EQ(
          cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
          cudaSuccess);
    }
    for (int i = 0; i < kSteps; ++i) {
      after(LaunchSmallLinear({.x = x.data(),
                               .weight = in_weight.data(),
                               .bias = offsets,
                               .y = hidden.data(),
                               .tokens = TokensOf(c),
                               .rows = c.batch * c.horizon,
                               .in = c.dim,
                               .out = c.width,
                               .activation = c.activation},
                              stream));
      after(LaunchActionStep({.hidden = hidden.data(),
                              .tokens = TokensOf(c),
                              .weight = weight.data(),
                              .bias = bias.data(),
                              .x = x.data(),
                              .dt = dts,
                              .rows = c.batch * c.horizon,
                              .width = c.width,
                              .dim = c.dim},
                             stream));
      after(LaunchAdvance(step.data(), stream));
    }
    if (captured) {
      cudaGraph_t graph = nullptr;
      cudaGraphExec_t executable = nullptr;
      EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
      EXPECT_EQ(cudaGraphInstantiate(&executable, graph), cudaSuccess);
      EXPECT_EQ(cudaGraphLaunch(executable, stream), cudaSuccess);
      EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      cudaGraphExecDestroy(executable);
      cudaGraphDestroy(graph);
    }
    cudaStreamDestroy(stream);
    EXPECT_EQ(step.Get()[0], kSteps);
    return x.Get();
  };
  EXPECT_TRUE(SameBits(run(true), run(false)));
}

}  // namespace
}  // namespace piserve::kernels
