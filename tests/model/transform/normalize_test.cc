// SPDX-License-Identifier: Apache-2.0
#include "model/transform/normalize.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/close.h"
#include "tests/support/golden.h"

namespace piserve::transform {
namespace {

FieldStats StatsOf(const nlohmann::json& json) {
  return {.mean = test::Numbers(json.at("mean")),
          .std = test::Numbers(json.at("std")),
          .q01 = test::Numbers(json.at("q01")),
          .q99 = test::Numbers(json.at("q99"))};
}

NormMode ModeOf(const nlohmann::json& json) {
  return json.at("quantiles").get<bool>() ? NormMode::kQuantile
                                          : NormMode::kMeanStd;
}

TEST(Normalize, StatesEqualOpenpis) {
  const auto golden = test::GoldenJson("preprocess/normalize.json");
  ASSERT_EQ(golden.at("cases").size(), 16);
  for (const auto& c : golden.at("cases")) {
    const FieldStats stats = StatsOf(c.at("stats").at("state"));
    std::vector<double> state = test::Numbers(c.at("state"));
    EXPECT_TRUE(CheckStats(stats, ModeOf(c), static_cast<int>(state.size()), 32,
                           "state")
                    .ok());
    NormalizeInPlace(stats, ModeOf(c), state);
    EXPECT_TRUE(test::Close(state, test::Numbers(c.at("normalized_state"))))
        << c.at("case");
  }
}

TEST(Normalize, ActionsComeBackAsOpenpis) {
  const auto golden = test::GoldenJson("preprocess/normalize.json");
  for (const auto& c : golden.at("cases")) {
    const FieldStats stats = StatsOf(c.at("stats").at("actions"));
    const auto& want = c.at("unnormalized").at("actions");
    for (std::size_t i = 0; i < c.at("model_actions").size(); ++i) {
      // These goldens' actions are float32 values.
      const auto action = c.at("model_actions")[i].get<std::vector<float>>();
      std::vector<double> got(action.size());
      Unnormalize(stats, ModeOf(c), action, got);
      EXPECT_TRUE(test::Close(got, test::Numbers(want.at(i)))) << c.at("case");
    }
  }
}

TEST(Normalize, QuantilesHalveActionsInFloat32) {
  const FieldStats stats = {.mean = {}, .std = {}, .q01 = {{0}}, .q99 = {{1}}};
  const std::vector<float> action = {1e-8f};  // 1 + 1e-8 is 1 in float32 only
  std::vector<double> got(1);
  Unnormalize(stats, NormMode::kQuantile, action, got);
  EXPECT_EQ(got[0], 0.5 * (1.0 + 1e-6));
}

TEST(Normalize, StatsThatDoNotFitAreRefused) {
  const FieldStats good = {.mean = {0, 0}, .std = {1, 1}, .q01 = {}, .q99 = {}};
  EXPECT_TRUE(CheckStats(good, NormMode::kMeanStd, 2, 32, "state").ok());
  EXPECT_TRUE(CheckStats(good, NormMode::kMeanStd, 1, 2, "state").ok());

  const auto code = [](const FieldStats& stats, NormMode mode, int data_dim,
                       int model_dim) {
    return CheckStats(stats, mode, data_dim, model_dim, "state").code();
  };
  constexpr auto kRefused = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(code(good, NormMode::kMeanStd, 3, 32), kRefused);
  EXPECT_EQ(code(good, NormMode::kMeanStd, 1, 1), kRefused);
  EXPECT_EQ(code(good, NormMode::kQuantile, 2, 32), kRefused);

  FieldStats uneven = good;
  uneven.std.push_back(1);
  EXPECT_EQ(code(uneven, NormMode::kMeanStd, 2, 32), kRefused);
  FieldStats infinite = good;
  infinite.std[1] = std::numeric_limits<double>::infinity();
  EXPECT_EQ(code(infinite, NormMode::kMeanStd, 2, 32), kRefused);
}

TEST(Normalize, ARefusalNamesTheVector) {
  const FieldStats stats = {.mean = {0, 0}, .std = {1}, .q01 = {}, .q99 = {}};
  EXPECT_EQ(CheckStats(stats, NormMode::kMeanStd, 2, 32, "actions").message(),
            "norm stats: actions.std: got 1 dimensions, want 2 to 32");
}

}  // namespace
}  // namespace piserve::transform
