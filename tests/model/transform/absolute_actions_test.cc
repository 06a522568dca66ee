// SPDX-License-Identifier: Apache-2.0
#include "model/transform/absolute_actions.h"

#include <gtest/gtest.h>

#include "tests/support/close.h"
#include "tests/support/golden.h"

namespace piserve::transform {
namespace {

TEST(AbsoluteActions, MasksAndSumsEqualOpenpis) {
  const auto golden = test::GoldenJson("preprocess/actions.json");
  for (const auto& c : golden.at("cases")) {
    const auto mask =
        MakeBoolMask(c.at("make_bool_mask").get<std::vector<int>>());
    EXPECT_EQ(mask, c.at("mask").get<std::vector<bool>>());
    const std::vector<double> state = test::Numbers(c.at("state"));
    for (std::size_t i = 0; i < c.at("actions").size(); ++i) {
      std::vector<double> action = test::Numbers(c.at("actions")[i]);
      MakeAbsolute(mask, state, action);
      EXPECT_TRUE(test::Close(action, test::Numbers(c.at("absolute")[i])));
    }
  }
}

TEST(AbsoluteActions, AnEmptyMaskChangesNothing) {
  std::vector<double> action = {1, 2};
  MakeAbsolute(MakeBoolMask({}), {}, action);
  EXPECT_EQ(action, (std::vector<double>{1, 2}));
}

}  // namespace
}  // namespace piserve::transform
