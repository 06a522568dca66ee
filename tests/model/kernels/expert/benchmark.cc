// SPDX-License-Identifier: Apache-2.0
// Denoising steps of one to four robots in a captured graph: checks, then
// times.
#include <algorithm>
#include <cstdio>

#include "tests/model/kernels/expert/fixture.h"

namespace piserve::kernels {
namespace {

constexpr int kReplays = 60;
// What a layer-step must read: its weights, and keys and values; at the
// bandwidth measured on an H200 with bulk copies.
constexpr double kBytesPerSecond = 4.59e12;

double LayerBytes(int prefix, int rows) {
  return 2.0 * (2560 * 1024 + 1024 * 2048 + 3 * 4096 * 1024) +
         2.0 * 2 * 256 * prefix * rows;
}

struct Case {
  ExpertForm form;
  int horizon, prefix, steps;
  int rows = 1;
};

// One row against the twin, more of them against each alone.
bool IsRight(const Case& c, RandomCall& call) {
  if (call.Launch() != cudaSuccess) return false;
  const std::vector<float> got = call.Result();
  call.ResetNoise();
  if (c.rows > 1) {
    for (int row = 0; row < c.rows; ++row) {
      if (call.LaunchAlone(row) != cudaSuccess) return false;
    }
    return SameBits(call.Result(), got);
  }
  const double error =
      RelativeError(std::vector<double>(got.begin(), got.end()),
                    RunTwin(call.Twin(), Rounding::kNone));
  std::printf("error %.2e\n", error);
  return error < 5e-2;
}

// Median milliseconds of a replay.
float Time(RandomCall& call) {
  cudaStream_t stream;
  cudaStreamCreate(&stream);
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal);
  EXPECT_EQ(call.Launch(stream), cudaSuccess);
  cudaStreamEndCapture(stream, &graph);
  EXPECT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  cudaEvent_t start, stop;
  cudaEventCreate(&start);
  cudaEventCreate(&stop);
  std::vector<float> times;
  for (int i = 0; i < kReplays; ++i) {
    call.ResetNoise();
    cudaEventRecord(start, stream);
    cudaGraphLaunch(replay, stream);
    cudaEventRecord(stop, stream);
    EXPECT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
    float ms = 0;
    cudaEventElapsedTime(&ms, start, stop);
    times.push_back(ms);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  std::printf("min %.4f p50 %.4f p95 %.4f max %.4f ms\n", times[0],
              times[times.size() / 2], times[times.size() * 95 / 100],
              times.back());
  return times[times.size() / 2];
}

int Run() {
  const Case cases[] = {
      {ExpertForm::kPi0, 50, 816, 10},    {ExpertForm::kPi0, 50, 816, 5},
      {ExpertForm::kPi0, 50, 560, 10},    {ExpertForm::kPi0, 10, 788, 10},
      {ExpertForm::kPi0, 50, 816, 10, 2}, {ExpertForm::kPi0, 50, 816, 10, 3},
      {ExpertForm::kPi0, 50, 816, 10, 4}, {ExpertForm::kPi05, 50, 968, 10},
      {ExpertForm::kPi05, 50, 816, 10},   {ExpertForm::kPi05, 50, 968, 10, 4}};
  std::unique_ptr<RandomExpert> expert;
  for (const Case& c : cases) {
    if (expert == nullptr || expert->form() != c.form) {
      expert = std::make_unique<RandomExpert>(c.form);
    }
    RandomCall call(*expert, c.horizon, c.prefix,
                    std::vector(c.rows, ExpertCall{.prefix = c.prefix,
                                                   .steps = c.steps,
                                                   .table_row = 0}));
    std::printf("%s H %d prefix %d steps %d rows %d\n",
                c.form == ExpertForm::kPi0 ? "pi0 " : "pi05", c.horizon,
                c.prefix, c.steps, c.rows);
    if (!IsRight(c, call)) return 1;
    const double ms = Time(call);
    const double layer = ms * 1e3 / (c.steps * kExpertDepth);
    std::printf(
        "    %.3f ms, %.2f us a layer-step, %.0f %% of HBM\n", ms, layer,
        100 * LayerBytes(c.prefix, c.rows) / kBytesPerSecond * 1e6 / layer);
  }
  return 0;
}

}  // namespace
}  // namespace piserve::kernels

int main() { return piserve::kernels::Run(); }
