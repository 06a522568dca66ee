// SPDX-License-Identifier: Apache-2.0
#include <memory>

#include "model/kernels/bias_gemm/bias_gemm.h"
#include "model/kernels/cluster_gemm/cluster_gemm.h"
#include "model/kernels/weight_gemm/add_gemm.h"
#include "model/kernels/weight_gemm/geglu_gemm.h"
#include "model/kernels/weight_gemm/gelu_gemm.h"
#include "model/kernels/weight_gemm/split_gemm.h"
#include "tests/model/kernels/cases.h"
#include "tests/model/kernels/twins.h"

namespace piserve::kernels {
namespace {

// A GEMM of `tokens`: inputs, weights and bytes. Inputs are rare and small, as
// GeGLU leaves them: power, and with it the clock, depends on data.
struct Product {
  int tokens, in, rows;

  KernelCase Case(const std::string& name) const {
    KernelCase c;
    c.name = name + " " + std::to_string(tokens) + " x " + std::to_string(in) +
             " to " + std::to_string(rows);
    const double weights = 2.0 * in * rows;
    c.bytes = weights + 2.0 * tokens * in;
    c.flops = 2.0 * tokens * in * rows;
    c.sets = SetsFor(weights);
    return c;
  }
  std::size_t weights() const { return static_cast<std::size_t>(in) * rows; }
};

KernelCase GegluGemmCase(int tokens, int in, int out) {
  const Product p{tokens, in, 2 * out};
  KernelCase c = p.Case("GeGLU GEMM");
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * in, 1 / 8.0f);
  auto w = RandomBf16(p.weights() * c.sets);
  auto y = std::make_shared<DeviceArray<Bf16>>(
      static_cast<std::size_t>(tokens) * out);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchGegluGemm({.x = x->data(),
                            .w = w->data() + set * p.weights(),
                            .y = y->data(),
                            .tokens = tokens,
                            .in = in,
                            .out = out},
                           stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = y->Get(), host_x = x->Get();
    const auto host_w = w->Get(p.weights());
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t at = i * 7919 % got.size();
      const Bf16* row = &host_x[at / out * in];
      const std::size_t gate = GegluGateRow(static_cast<int>(at % out));
      const Expected want =
          Geglu(Dot(row, &host_w[gate * in], in).value,
                Dot(row, &host_w[(gate + kGegluUpOffset) * in], in).value);
      ASSERT_NEAR(Value(got[at]), want.value,
                  0.01 * std::abs(want.value) + 0.05);
    }
  };
  return c;
}

using Matrix = std::shared_ptr<DeviceArray<Bf16>>;

// That a launch adds a product to y, and a bias where there is one: places all
// over it.
std::function<void()> AddedCheck(const Product& p,
                                 const decltype(KernelCase::launch)& launch,
                                 const Matrix& x, const Matrix& w,
                                 const Matrix& y, double slack,
                                 const Matrix& bias = nullptr) {
  return [=] {
    const auto before = y->Get();
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = y->Get(), host_x = x->Get();
    const auto host_w = w->Get(p.weights());
    const auto host_bias =
        bias == nullptr ? std::vector<Bf16>(p.rows, __float2bfloat16_rn(0))
                        : bias->Get();
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t at = i * 104729 % got.size();
      const std::size_t token = at / p.rows, output = at % p.rows;
      const double want =
          Value(before[at]) + Value(host_bias[output]) +
          Dot(&host_x[token * p.in], &host_w[output * p.in], p.in).value;
      ASSERT_NEAR(Value(got[at]), want, 0.01 * std::abs(want) + slack);
    }
  };
}

KernelCase AddGemmCase(int tokens) {
  constexpr int kIn = 16384, kOut = 2048;
  const Product p{tokens, kIn, kOut};
  KernelCase c = p.Case("add GEMM");
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * kIn, 1 / 8.0f);
  auto w = RandomBf16(p.weights() * c.sets, 1 / 128.0f);
  auto y = RandomBf16(static_cast<std::size_t>(tokens) * kOut);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchAddGemm({.x = x->data(),
                          .w = w->data() + set * p.weights(),
                          .y = y->data(),
                          .tokens = tokens,
                          .in = kIn,
                          .out = kOut},
                         stream);
  };
  c.check = AddedCheck(p, c.launch, x, w, y, 0.01);
  return c;
}

KernelCase GeluGemmCase(int tokens) {
  constexpr int kIn = 1152, kOut = 4352;
  const Product p{tokens, kIn, kOut};
  KernelCase c = p.Case("GELU GEMM");
  c.bytes += 2.0 * tokens * kOut;
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * kIn);
  auto w = RandomBf16(p.weights() * c.sets, 1 / 34.0f);
  auto bias = RandomBf16(kOut);
  auto sums = std::make_shared<DeviceArray<float>>(std::vector<float>(kOut, 0));
  auto moments = std::make_shared<DeviceArray<float2>>(
      std::vector<float2>(tokens, {1, 0}));
  auto y = std::make_shared<DeviceArray<Bf16>>(
      static_cast<std::size_t>(tokens) * kOut);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchGeluGemm({.x = x->data(),
                           .moments = moments->data(),
                           .w = w->data() + set * p.weights(),
                           .sums = sums->data(),
                           .bias = bias->data(),
                           .y = y->data(),
                           .tokens = tokens,
                           .in = kIn,
                           .out = kOut},
                          stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = y->Get(), host_x = x->Get(), host_bias = bias->Get();
    const auto host_w = w->Get(p.weights());
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t at = i * 7919 % got.size();
      const double linear =
          Dot(&host_x[at / kOut * kIn], &host_w[at % kOut * kIn], kIn).value +
          Value(host_bias[at % kOut]);
      const double want = Geglu(linear, 1).value;
      ASSERT_NEAR(Value(got[at]), want, 0.01 * std::abs(want) + 0.01);
    }
  };
  return c;
}

KernelCase BiasGemmCase(int tokens, int in) {
  constexpr int kOut = 1152;
  const Product p{tokens, in, kOut};
  KernelCase c = p.Case("bias GEMM");
  c.bytes += 4.0 * tokens * kOut;
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * in, 1 / 8.0f);
  auto w = RandomBf16(p.weights() * c.sets, 1 / 64.0f);
  auto bias = RandomBf16(kOut);
  auto y = RandomBf16(static_cast<std::size_t>(tokens) * kOut);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchBiasGemm({.x = x->data(),
                           .w = w->data() + set * p.weights(),
                           .bias = bias->data(),
                           .y = y->data(),
                           .tokens = tokens,
                           .in = in,
                           .out = kOut},
                          stream);
  };
  c.check = AddedCheck(p, c.launch, x, w, y, 0.02, bias);
  return c;
}

KernelCase ClusterGemmCase(int tokens, int in) {
  constexpr int kOut = 1024;
  const Product p{tokens, in, kOut};
  KernelCase c = p.Case("cluster GEMM");
  c.bytes += 4.0 * tokens * kOut;
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * in, 1 / 8.0f);
  auto w = RandomBf16(p.weights() * c.sets, 1 / 64.0f);
  auto y = RandomBf16(static_cast<std::size_t>(tokens) * kOut);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchClusterGemm({.x = x->data(),
                              .w = w->data() + set * p.weights(),
                              .y = y->data(),
                              .adds = true,
                              .tokens = tokens,
                              .in = in,
                              .out = kOut},
                             stream);
  };
  c.check = AddedCheck(p, c.launch, x, w, y, 0.02);
  return c;
}

KernelCase SplitGemmCase(int tokens) {
  constexpr int kIn = 16384, kOut = 2048, kHalf = kIn / kSplitGemmParts;
  const Product p{tokens, kIn, kOut};
  KernelCase c = p.Case("split GEMM");
  auto x = RandomBf16(static_cast<std::size_t>(tokens) * kIn, 1 / 8.0f);
  auto w = RandomBf16(p.weights() * c.sets);
  auto parts = std::make_shared<DeviceArray<float>>(
      static_cast<std::size_t>(kSplitGemmParts) * tokens * kOut);
  c.launch = [=](int set, cudaStream_t stream) {
    return LaunchSplitGemm({.x = x->data(),
                            .w = w->data() + set * p.weights(),
                            .parts = parts->data(),
                            .tokens = tokens,
                            .in = kIn,
                            .out = kOut},
                           stream);
  };
  c.check = [=, launch = c.launch] {
    ASSERT_EQ(launch(0, nullptr), cudaSuccess);
    const auto got = parts->Get();
    const auto host_x = x->Get();
    const auto host_w = w->Get(p.weights());
    for (std::size_t i = 0; i < 200; ++i) {
      const std::size_t at = i * 104729 % got.size();
      const std::size_t part = at / kOut / tokens, token = at / kOut % tokens;
      const double want = Dot(&host_x[token * kIn + part * kHalf],
                              &host_w[at % kOut * kIn + part * kHalf], kHalf)
                              .value;
      ASSERT_NEAR(got[at], want, 1e-3 * std::abs(want) + 1e-2);
    }
  };
  return c;
}

}  // namespace

std::vector<CaseMaker> GemmCases() {
  std::vector<CaseMaker> cases;
  for (const int tokens : {560, 816, 968, 6528}) {
    cases.push_back([=] { return GegluGemmCase(tokens, 2048, 16384); });
  }
  for (const int tokens : {100, 200, 400, 800, 3200}) {
    cases.push_back([=] { return GegluGemmCase(tokens, 1024, 4096); });
  }
  cases.push_back([] { return AddGemmCase(6528); });
  cases.push_back([] { return GeluGemmCase(6144); });
  for (const int in : {1152, 4352}) {
    cases.push_back([=] { return BiasGemmCase(6144, in); });
  }
  for (const int in : {2048, 4096}) {
    cases.push_back([=] { return ClusterGemmCase(400, in); });
  }
  for (const int tokens : {560, 816}) {
    cases.push_back([=] { return SplitGemmCase(tokens); });
  }
  return cases;
}

}  // namespace piserve::kernels
