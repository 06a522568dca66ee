// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <memory>
#include <string>

#include "model/kernels/suffix.h"
#include "tests/model/kernels/cases.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

constexpr int kActions = 32, kWidth = 1024;

SuffixTokens AllOf(int tokens) {
  SuffixTokens all;
  all.count = all.stride = tokens;
  return all;
}

KernelCase SmallLinearCase(int tokens) {
  KernelCase c;
  c.name = "small linear, tokens " + std::to_string(tokens);
  const std::size_t size = static_cast<std::size_t>(tokens) * kWidth;
  c.bytes = 2.0 * size + 4.0 * kActions * (tokens + kWidth);
  c.sets = SetsFor(c.bytes);
  auto x = RandomFloat(tokens * kActions, 0, 1);
  auto weight = RandomFloat(kActions * kWidth, 0, 0.2f);
  auto bias = RandomFloat(kWidth, 0, 0.1f);
  auto y = std::make_shared<DeviceArray<Bf16>>(size * c.sets);
  c.launch = [=](int set, cudaStream_t stream) {
    SmallLinearArgs args;
    args.x = x->data();
    args.weight = weight->data();
    args.bias.base = bias->data();
    args.y = y->data() + set * size;
    args.tokens = AllOf(tokens);
    args.rows = tokens;
    args.in = kActions;
    args.out = kWidth;
    args.activation = Activation::kSilu;
    return LaunchSmallLinear(args, stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto in = x->Get(), w = weight->Get(), b = bias->Get();
    const auto got = y->Get(size);
    for (std::size_t i = 0; i < size; i += 13) {
      const std::size_t token = i / kWidth, column = i % kWidth;
      double sum = b[column];
      for (int k = 0; k < kActions; ++k) {
        sum += static_cast<double>(w[k * kWidth + column]) *
               in[token * kActions + k];
      }
      const double want = sum / (1 + std::exp(-sum));
      ASSERT_NEAR(Value(got[i]), want, kBf16Half * std::abs(want) + 1e-4) << i;
    }
  };
  return c;
}

KernelCase ActionStepCase(int tokens) {
  KernelCase c;
  c.name = "action step, tokens " + std::to_string(tokens);
  const std::size_t size = static_cast<std::size_t>(tokens) * kWidth;
  c.bytes = 2.0 * size + 4.0 * kActions * (2 * tokens + kWidth);
  c.sets = SetsFor(c.bytes);
  auto hidden = RandomBf16(size * c.sets);
  auto weight = RandomFloat(kActions * kWidth, 0, 0.03f);
  auto bias = RandomFloat(kActions, 0, 0.1f);
  auto dt = RandomFloat(1, -0.1f, 0);
  auto x = RandomFloat(tokens * kActions, 0, 1);
  c.launch = [=](int set, cudaStream_t stream) {
    ActionStepArgs args;
    args.hidden = hidden->data() + set * size;
    args.tokens = AllOf(tokens);
    args.weight = weight->data();
    args.bias = bias->data();
    args.x = x->data();
    args.dt.base = dt->data();
    args.rows = tokens;
    args.width = kWidth;
    args.dim = kActions;
    return LaunchActionStep(args, stream);
  };
  c.check = [=, launch = c.launch] {
    const auto before = x->Get();
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto after = x->Get();
    const auto w = weight->Get(), b = bias->Get();
    const auto h = hidden->Get(size);
    for (int i = 0; i < tokens * kActions; i += 13) {
      double sum = b[i % kActions], terms = std::abs(sum);
      for (int k = 0; k < kWidth; ++k) {
        const double term =
            w[i % kActions * kWidth + k] *
            Value(h[static_cast<long>(i / kActions) * kWidth + k]);
        sum += term;
        terms += std::abs(term);
      }
      const double want = before[i] - 0.1f * sum;
      ASSERT_NEAR(after[i], want, kWidth * kFp32Half * terms + 1e-6) << i;
    }
  };
  return c;
}

}  // namespace

std::vector<CaseMaker> SuffixCases() {
  std::vector<CaseMaker> cases;
  for (const int tokens : {50, 400, 3200}) {
    cases.push_back([=] { return SmallLinearCase(tokens); });
  }
  for (const int tokens : {50, 400, 3200}) {
    cases.push_back([=] { return ActionStepCase(tokens); });
  }
  return cases;
}

}  // namespace piserve::kernels
