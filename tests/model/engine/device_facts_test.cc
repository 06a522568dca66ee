// SPDX-License-Identifier: Apache-2.0
// What an engine tells of its device once it is ready.
#include <ATen/cuda/CUDAContextLight.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "model/engine/policy.h"
#include "tests/model/reference/golden_case.h"

namespace piserve::engine {
namespace {

using ::testing::Pair;
using ::testing::UnorderedElementsAre;

class DeviceFactsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!at::cuda::is_available()) GTEST_SKIP() << "no CUDA device here";
  }

  static std::unique_ptr<EnginePolicy> Start(std::vector<int> batch_sizes) {
    EnginePolicy::Options options;
    options.batch_sizes = std::move(batch_sizes);
    auto policy = EnginePolicy::Create(
        reference::GoldenWeights("tiny_pi0", "model.safetensors"),
        std::move(options));
    if (!policy.ok()) throw std::runtime_error(policy.status().ToString());
    return *std::move(policy);
  }
};

TEST_F(DeviceFactsTest, MemoryIsAPolicysOwn) {
  const auto first = Start({1});
  const auto second = Start({1});
  const auto larger = Start({1, 64});
  const DeviceMemory one = first->device_facts()->memory;
  const DeviceMemory two = second->device_facts()->memory;
  const DeviceMemory large = larger->device_facts()->memory;
  std::printf(
      "weights %.0f, buffers %.0f and %.0f, of 64 rows %.0f, free %.0f of "
      "%.0f\n",
      one.weights, one.buffers, two.buffers, large.buffers, large.free,
      large.total);
  EXPECT_GT(one.weights, 0);
  EXPECT_GT(one.buffers, 0);
  // With a process's first graphs torch keeps a few numbers of its own.
  constexpr double kFewBytes = 65536;
  EXPECT_EQ(two.weights, one.weights);
  EXPECT_NEAR(two.buffers, one.buffers, kFewBytes);
  EXPECT_EQ(large.weights, one.weights);
  EXPECT_GT(large.buffers, one.buffers);
  EXPECT_GT(large.free, 0);
  EXPECT_LE(large.free + one.weights + one.buffers + two.weights + two.buffers +
                large.weights + large.buffers,
            large.total);
}

// The tiny variant has one prompt capacity and no persistent kernel.
TEST_F(DeviceFactsTest, EveryGraphIsTold) {
  const DeviceFacts facts = *Start({1, 3})->device_facts();
  std::map<std::tuple<std::string, int, std::string>, int> graphs;
  for (const CapturedGraph& graph : facts.graphs) {
    ++graphs[{graph.stage, graph.rows, graph.steps}];
  }
  const auto graph = [](const char* stage, int rows, const char* steps) {
    return std::tuple<std::string, int, std::string>(stage, rows, steps);
  };
  EXPECT_THAT(graphs, UnorderedElementsAre(
                          Pair(graph("vision", 1, "none"), Variant::kCameras),
                          Pair(graph("vision", 3, "none"), Variant::kCameras),
                          Pair(graph("prefill", 1, "none"), Variant::kCameras),
                          Pair(graph("prefill", 3, "none"), Variant::kCameras),
                          Pair(graph("denoise", 1, "first"), 1),
                          Pair(graph("denoise", 1, "later"), 1),
                          Pair(graph("denoise", 3, "first"), 1),
                          Pair(graph("denoise", 3, "later"), 1)));
}

// An idle device uses energy too.
TEST_F(DeviceFactsTest, EnergyGrowsAndOutlivesThePolicy) {
  DeviceFacts::Energy energy = Start({1})->device_facts()->energy;
  const std::optional<double> start = energy();
  if (!start.has_value()) GTEST_SKIP() << "no NVML here that tells energy";
  std::optional<double> now = start;
  const absl::Time until = absl::Now() + absl::Seconds(10);
  while (now.has_value() && *now <= *start && absl::Now() < until) {
    absl::SleepFor(absl::Milliseconds(20));
    now = energy();
  }
  ASSERT_TRUE(now.has_value());
  EXPECT_GT(*now, *start);
  EXPECT_LT(*now - *start, 20000);  // J: 2 kW for that long
}

}  // namespace
}  // namespace piserve::engine
