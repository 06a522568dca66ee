// SPDX-License-Identifier: Apache-2.0
#include "model/transform/robots.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/support/close.h"
#include "tests/support/golden.h"

namespace piserve::transform {
namespace {

PolicyConfig ConfigOf(Robot robot, bool adapt_to_pi = false) {
  PolicyConfig config;
  config.robot = robot;
  config.adapt_to_pi = adapt_to_pi;
  return config;
}

TEST(Robots, AlohaGripperEqualsOpenpis) {
  const auto golden = test::GoldenJson("preprocess/robots.json");
  for (const auto& pair : golden.at("aloha_gripper_to_angular")) {
    EXPECT_TRUE(test::Close({AlohaGripperToAngular(pair[0])}, {pair[1]}))
        << pair;
  }
  for (const auto& pair : golden.at("aloha_gripper_from_angular")) {
    EXPECT_TRUE(test::Close({AlohaGripperFromAngular(pair[0])}, {pair[1]}))
        << pair;
  }
}

TEST(Robots, AlohaStatesAndActionsEqualOpenpis) {
  const auto golden = test::GoldenJson("preprocess/robots.json");
  for (const auto& c : golden.at("aloha")) {
    const PolicyConfig config =
        ConfigOf(Robot::kAloha, c.at("adapt_to_pi").get<bool>());
    std::vector<double> state = test::Numbers(c.at("state"));
    TransformState(config, state);
    EXPECT_TRUE(test::Close(state, test::Numbers(c.at("state_out"))));
    for (std::size_t i = 0; i < c.at("actions").size(); ++i) {
      std::vector<double> action = test::Numbers(c.at("actions")[i]);
      action.resize(SpecOf(config).action_dim());
      TransformAction(config, action);
      EXPECT_TRUE(test::Close(action, test::Numbers(c.at("actions_out")[i])));
    }
  }
}

TEST(Robots, LiberoAndDroidStatesAreTakenAsTheyAre) {
  for (const Robot robot : {Robot::kLibero, Robot::kDroid}) {
    // adapt_to_pi is ALOHA's alone.
    const PolicyConfig config = ConfigOf(robot, /*adapt_to_pi=*/true);
    std::vector<double> values = {1, 2, 3, 4, 5, 6, 7, 8};
    const std::vector<double> before = values;
    TransformState(config, values);
    TransformAction(config, values);
    EXPECT_EQ(values, before);
  }
}

TEST(Robots, DimensionsAreOpenpis) {
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kLibero)).state_dim(), 8);
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kLibero)).action_dim(), 7);
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kDroid)).state_dim(), 8);
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kDroid)).action_dim(), 8);
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kAloha)).state_dim(), 14);
  EXPECT_EQ(SpecOf(ConfigOf(Robot::kAloha)).action_dim(), 14);
}

TEST(Robots, EveryRobotNeedsItsBaseCameraAndNoSlotIsFilledTwice) {
  for (const Robot robot : {Robot::kLibero, Robot::kDroid, Robot::kAloha}) {
    std::vector<int> slots;
    for (const CameraSpec& camera : SpecOf(ConfigOf(robot)).cameras) {
      EXPECT_EQ(camera.slot.has_value(), camera.use != CameraUse::kIgnored);
      if (camera.slot == 0) {
        EXPECT_EQ(camera.use, CameraUse::kRequired);
      }
      if (camera.slot.has_value()) slots.push_back(*camera.slot);
    }
    std::sort(slots.begin(), slots.end());
    EXPECT_EQ(std::adjacent_find(slots.begin(), slots.end()), slots.end());
    EXPECT_EQ(slots.front(), 0);
  }
}

TEST(Robots, DroidActionsArePositionsOnlyWhereTheStateIsAdded) {
  PolicyConfig config = ConfigOf(Robot::kDroid);
  EXPECT_EQ(SpecOf(config).actions[0].name, "joint_velocity");
  config.absolute_actions = {7, -1};
  EXPECT_EQ(SpecOf(config).actions[0].name, "joint_position");
}

}  // namespace
}  // namespace piserve::transform
