// SPDX-License-Identifier: Apache-2.0
#include "model/kernels/expert/expert.h"

#include "model/kernels/weight_gemm/geglu_gemm.h"
#include "tests/model/kernels/expert/fixture.h"

namespace piserve::kernels {
namespace {

// The kernel rounds activations to bf16 on their way between blocks and keeps
// the residual and every sum in FP32. openpi rounds the residual and every
// intermediate to bf16. So the kernel may not be further from exact arithmetic
// than openpi's rounding is. Both errors are sums of many independent ones; 10
// % covers their spread at the smallest case, 320 values.
constexpr double kOfOpenpi = 1.1;

class ExpertTest : public KernelTest {
 protected:
  static const RandomExpert& Expert(ExpertForm form) {
    static const auto* pi0 = new RandomExpert(ExpertForm::kPi0);
    static const auto* pi05 = new RandomExpert(ExpertForm::kPi05);
    return form == ExpertForm::kPi0 ? *pi0 : *pi05;
  }
};

// Runs the call and compares every step's velocity, and the actions.
void ExpectAsCloseAsOpenpi(RandomCall& call, const std::string& what) {
  ASSERT_EQ(call.Launch(), cudaSuccess) << what;
  const cudaError_t error = cudaDeviceSynchronize();
  ASSERT_EQ(error, cudaSuccess) << what << cudaGetErrorString(error);
  const std::vector<float> got = call.Result();
  call.ResetNoise();
  const TwinArgs twin = call.Twin();
  const std::vector<double> exact = RunTwin(twin, Rounding::kNone);
  const std::vector<double> openpi = RunTwin(twin, Rounding::kOpenpi);
  const std::size_t part = twin.args.horizon * kExpertActionDim;
  for (std::size_t i = 0; i < exact.size(); i += part) {
    const auto slice = [&](const auto& v) {
      return std::vector<double>(v.begin() + i, v.begin() + i + part);
    };
    const double ours = RelativeError(slice(got), slice(exact));
    const double theirs = RelativeError(slice(openpi), slice(exact));
    EXPECT_LE(ours, kOfOpenpi * theirs) << what << ", part " << i / part;
  }
}

std::string Name(ExpertForm form, int horizon, int prefix) {
  return std::string(form == ExpertForm::kPi0 ? "pi0" : "pi05") + " H " +
         std::to_string(horizon) + " prefix " + std::to_string(prefix);
}

TEST_F(ExpertTest, NoLessAccurateThanOpenpisRounding) {
  for (const ExpertForm form : {ExpertForm::kPi0, ExpertForm::kPi05}) {
    for (const int horizon : {10, 50}) {
      for (const int prefix : {1, 300, 788, 816, 968}) {
        RandomCall call(Expert(form), horizon, 968,
                        {.prefix = prefix, .steps = 2, .table_row = 3});
        ExpectAsCloseAsOpenpi(call, Name(form, horizon, prefix));
      }
    }
  }
}

TEST_F(ExpertTest, TenStepsNoLessAccurateThanOpenpisRounding) {
  for (const ExpertForm form : {ExpertForm::kPi0, ExpertForm::kPi05}) {
    RandomCall call(Expert(form), 50, 816,
                    {.prefix = 816, .steps = 10, .table_row = 1});
    ExpectAsCloseAsOpenpi(call, Name(form, 50, 816) + " ten steps");
  }
}

// Scores of a few hundred overflow an exponential without the row's maximum.
TEST_F(ExpertTest, LargeScoresDoNotOverflow) {
  for (const ExpertForm form : {ExpertForm::kPi0, ExpertForm::kPi05}) {
    RandomCall call(Expert(form), 50, 816,
                    {.prefix = 816, .steps = 2, .table_row = 0}, 60);
    ASSERT_EQ(call.Launch(), cudaSuccess);
    for (const float v : call.Result()) ASSERT_TRUE(std::isfinite(v));
  }
}

TEST_F(ExpertTest, PackedGateAndUpPackToTheSame) {
  ExpertWeights weights = Expert(ExpertForm::kPi0).weights();
  constexpr std::size_t kRow = kExpertWidth * sizeof(Bf16);
  DeviceArray<Bf16> merged(std::size_t{2} * kExpertMlp * kExpertWidth);
  for (int i = 0; i < kExpertMlp; ++i) {
    const long row = GegluGateRow(i);
    const long from = static_cast<long>(i) * kExpertWidth;
    for (const auto& [to, source] :
         {std::pair(row, weights.layers[0].gate + from),
          std::pair(row + kGegluUpOffset, weights.layers[0].up + from)}) {
      ASSERT_EQ(cudaMemcpy(merged.data() + to * kExpertWidth, source, kRow,
                           cudaMemcpyDeviceToDevice),
                cudaSuccess);
    }
  }
  const auto pack = [&] {
    DeviceArray<char> packed(ExpertPackedBytes());
    EXPECT_EQ(cudaMemset(packed.data(), 0, packed.size()), cudaSuccess);
    EXPECT_EQ(LaunchExpertPack(weights, packed.data(), nullptr), cudaSuccess);
    return packed.Get();
  };
  const auto want = pack();
  weights.layers[0].gate = merged.data();
  weights.layers[0].up = nullptr;
  weights.layers[0].gate_up = GateUpRows::kPacked;
  EXPECT_TRUE(SameBits(pack(), want));
}

// Calls of these many rows, each with a prefix of its own.
std::vector<ExpertCall> CallsOf(int rows, int steps) {
  constexpr int kPrefixes[] = {816, 1, 968, 300};
  std::vector<ExpertCall> calls;
  for (int i = 0; i < rows; ++i) {
    calls.push_back({.prefix = kPrefixes[i], .steps = steps, .table_row = 1});
  }
  return calls;
}

class ExpertRowsTest : public ExpertTest,
                       public testing::WithParamInterface<int> {};

INSTANTIATE_TEST_SUITE_P(Of, ExpertRowsTest,
                         testing::Range(2, kExpertMaxRows + 1),
                         testing::PrintToStringParamName());

TEST_P(ExpertRowsTest, AnswerAsEachAlone) {
  const int rows = GetParam();
  for (const ExpertForm form : {ExpertForm::kPi0, ExpertForm::kPi05}) {
    RandomCall call(Expert(form), 50, 968, CallsOf(rows, 2));
    ASSERT_EQ(call.Launch(), cudaSuccess);
    const std::vector<float> together = call.Result();
    call.ResetNoise();
    for (int row = 0; row < rows; ++row) {
      ASSERT_EQ(call.LaunchAlone(row), cudaSuccess);
    }
    EXPECT_TRUE(SameBits(call.Result(), together)) << Name(form, 50, 968);
  }
}

class ExpertReplayTest : public ExpertTest,
                         public testing::WithParamInterface<int> {};

INSTANTIATE_TEST_SUITE_P(Of, ExpertReplayTest,
                         testing::Values(1, kExpertMaxRows),
                         testing::PrintToStringParamName());

TEST_P(ExpertReplayTest, OfACapturedLaunchGivesTheSameBits) {
  for (const ExpertForm form : {ExpertForm::kPi0, ExpertForm::kPi05}) {
    RandomCall call(Expert(form), 50, 968, CallsOf(GetParam(), 2));
    ASSERT_EQ(call.Launch(), cudaSuccess);
    const std::vector<float> first = call.Result();
    cudaStream_t stream;
    ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal),
              cudaSuccess);
    ASSERT_EQ(call.Launch(stream), cudaSuccess);
    ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
    for (int i = 0; i < 1000; ++i) {
      call.ResetNoise();
      ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
      ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
      ASSERT_TRUE(SameBits(call.Result(), first)) << "replay " << i;
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
  }
}

TEST_F(ExpertTest, RefusesWhatItCannotHold) {
  EXPECT_TRUE(ExpertSupports(ExpertForm::kPi0, 1, 50, 973));
  EXPECT_FALSE(ExpertSupports(ExpertForm::kPi0, 1, 50, 974));
  EXPECT_TRUE(ExpertSupports(ExpertForm::kPi05, 1, 50, 974));
  EXPECT_TRUE(ExpertSupports(ExpertForm::kPi0, 1, 63, 960));
  EXPECT_FALSE(ExpertSupports(ExpertForm::kPi0, 1, 64, 960));
  EXPECT_TRUE(ExpertSupports(ExpertForm::kPi0, kExpertMaxRows, 50, 973));
  EXPECT_FALSE(ExpertSupports(ExpertForm::kPi0, kExpertMaxRows + 1, 50, 816));
  EXPECT_FALSE(ExpertSupports(ExpertForm::kPi0, 0, 50, 816));
  EXPECT_EQ(LaunchExpert(ExpertArgs{}, nullptr), cudaErrorInvalidValue);
}

}  // namespace
}  // namespace piserve::kernels
