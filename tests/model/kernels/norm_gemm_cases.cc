// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "model/kernels/norm_gemm/norm_gemm.h"
#include "tests/model/kernels/cases.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

constexpr int kIn = 1152;

// Checks a few outputs for inputs of mean 0 and variance 1, within what that
// leaves of the norm.
KernelCase NormGemmCase(int tokens, int out, NormGemmActivation activation) {
  KernelCase c;
  c.name = "norm and GEMM, " + std::to_string(tokens) + " x " +
           std::to_string(kIn) + " to " + std::to_string(out);
  const std::size_t weights = static_cast<std::size_t>(out) * kIn;
  c.bytes = 2.0 * (weights + static_cast<double>(tokens) * (kIn + out));
  c.flops = 2.0 * tokens * weights;
  c.sets = SetsFor(2.0 * weights);
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * kIn);
  auto w = RandomBf16(weights * c.sets, 1 / 34.0f);
  auto bias = RandomBf16(out);
  auto sums = std::make_shared<DeviceArray<float>>(std::vector<float>(out, 0));
  auto y = std::make_shared<DeviceArray<Bf16>>(
      static_cast<std::size_t>(tokens) * out);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchNormGemm({.x = x->data(),
                           .w = w->data() + set * weights,
                           .sums = sums->data(),
                           .bias = bias->data(),
                           .y = y->data(),
                           .tokens = tokens,
                           .in = kIn,
                           .out = out,
                           .activation = activation},
                          stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = y->Get(), host_x = x->Get(), host_bias = bias->Get();
    const auto host_w = w->Get(weights);
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t at = i * 7919 % got.size();
      double want =
          Dot(&host_x[at / out * kIn], &host_w[at % out * kIn], kIn).value +
          Value(host_bias[at % out]);
      if (activation == NormGemmActivation::kGeluTanh) {
        want = Geglu(want, 1).value;
      }
      ASSERT_NEAR(Value(got[at]), want, 0.1 * std::abs(want) + 0.2);
    }
  };
  return c;
}

}  // namespace

std::vector<CaseMaker> NormGemmCases() {
  std::vector<CaseMaker> cases;
  for (const int tokens : {256, 512, 768}) {
    cases.push_back(
        [=] { return NormGemmCase(tokens, 3456, NormGemmActivation::kNone); });
    cases.push_back([=] {
      return NormGemmCase(tokens, 4352, NormGemmActivation::kGeluTanh);
    });
  }
  return cases;
}

}  // namespace piserve::kernels
