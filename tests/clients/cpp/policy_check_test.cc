// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/policy_check.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "clients/cpp/piserve/status.h"
#include "model/policy_config.h"
#include "model/transform/robots.h"

namespace piserve::client {
namespace {

void AddBlocks(const std::vector<BlockSpec>& from,
               google::protobuf::RepeatedPtrField<v1::Block>* to) {
  for (const BlockSpec& block : from) {
    v1::Block* added = to->Add();
    added->set_name(block.name);
    added->set_unit(block.unit);
    added->set_size(block.size);
  }
}

// What a server tells of a policy for this robot.
v1::PolicyInfo InfoFor(const RobotProfile& robot) {
  v1::PolicyInfo info;
  info.set_name(robot.name);
  info.set_model_digest("model-1");
  info.set_preprocessing_checksum("sum-1");
  info.set_action_horizon(10);
  for (const std::string& camera : robot.cameras) {
    v1::Camera* added = info.add_cameras();
    added->set_name(camera);
    added->set_use(v1::CAMERA_USE_REQUIRED);
  }
  AddBlocks(robot.state, info.mutable_state());
  AddBlocks(robot.action, info.mutable_action());
  return info;
}

std::string ReasonOf(const v1::PolicyInfo& info, const Expectation& want) {
  const absl::Status status = CheckPolicy(info, want);
  EXPECT_TRUE(status.ok() || absl::IsFailedPrecondition(status)) << status;
  return ErrorReason(status);
}

TEST(CheckPolicy, EachRobotTakesItsOwnPoliciesOnly) {
  const std::vector<RobotProfile> robots = {LiberoProfile(), AlohaProfile(),
                                            DroidProfile()};
  for (const RobotProfile& robot : robots) {
    for (const RobotProfile& other : robots) {
      EXPECT_EQ(CheckPolicy(InfoFor(other), {.robot = robot}).ok(),
                robot.name == other.name)
          << robot.name << " on a policy for " << other.name;
    }
  }
}

// The profiles are copies: the client knows nothing of the server's sources.
TEST(CheckPolicy, ProfilesAreWhatTheServerTells) {
  const std::pair<RobotProfile, const char*> known[] = {
      {LiberoProfile(), "pi05_libero"},
      {AlohaProfile(), "pi0_aloha_towel"},
      {DroidProfile(), "pi05_droid"}};
  for (const auto& [robot, config] : known) {
    const transform::RobotSpec spec =
        transform::SpecOf(*FindPolicyConfig(config));
    RobotProfile told = {
        .name = config, .cameras = {}, .state = {}, .action = {}};
    for (const auto& camera : spec.cameras) {
      told.cameras.emplace_back(camera.name);
    }
    for (const auto& [blocks, out] : {std::pair(spec.state, &told.state),
                                      std::pair(spec.actions, &told.action)}) {
      for (const transform::Block& block : blocks) {
        out->push_back({.name = std::string(block.name),
                        .unit = std::string(block.unit),
                        .size = block.size});
      }
    }
    const absl::Status status = CheckPolicy(InfoFor(told), {.robot = robot});
    EXPECT_TRUE(status.ok()) << status;
  }
}

TEST(CheckPolicy, NothingExpectedIsNothingRefused) {
  EXPECT_TRUE(CheckPolicy(InfoFor(DroidProfile()), {}).ok());
}

TEST(CheckPolicy, CamerasThatTheRobotLacksOrThePolicyDoesNotKnowAreTold) {
  v1::PolicyInfo info = InfoFor(LiberoProfile());
  RobotProfile robot = LiberoProfile();
  robot.cameras.pop_back();
  EXPECT_EQ(ReasonOf(info, {.robot = robot}), "CAMERAS_MISMATCH");
  info.mutable_cameras(1)->set_use(v1::CAMERA_USE_OPTIONAL);
  EXPECT_EQ(ReasonOf(info, {.robot = robot}), "");
  robot.cameras.push_back("observation/back");
  EXPECT_EQ(ReasonOf(info, {.robot = robot}), "CAMERAS_MISMATCH");
}

TEST(CheckPolicy, StatesOfAnotherLengthUnitOrOrderAreTold) {
  const v1::PolicyInfo info = InfoFor(LiberoProfile());
  RobotProfile shorter = LiberoProfile();
  shorter.state.pop_back();
  RobotProfile unit = LiberoProfile();
  unit.state[0].unit = "mm";
  RobotProfile order = LiberoProfile();
  std::swap(order.state[0], order.state[1]);
  for (const RobotProfile& robot : {shorter, unit, order}) {
    EXPECT_EQ(ReasonOf(info, {.robot = robot}), "STATE_MISMATCH");
  }
}

TEST(CheckPolicy, PositionsAreNoVelocities) {
  RobotProfile robot = DroidProfile();
  robot.action[0] = {"joint_position", "rad", 7};
  EXPECT_EQ(ReasonOf(InfoFor(DroidProfile()), {.robot = robot}),
            "ACTION_MISMATCH");
}

TEST(CheckPolicy, OtherWeightsAndOtherStatisticsAreTold) {
  const v1::PolicyInfo info = InfoFor(LiberoProfile());
  EXPECT_EQ(ReasonOf(info, {.model_digest = "model-1",
                            .preprocessing_checksum = "sum-1"}),
            "");
  EXPECT_EQ(ReasonOf(info, {.model_digest = "model-2"}),
            "MODEL_DIGEST_MISMATCH");
  EXPECT_EQ(ReasonOf(info, {.preprocessing_checksum = "sum-2"}),
            "PREPROCESSING_MISMATCH");
}

TEST(CheckChunk, IsOfTheModelAndOfItsShape) {
  const v1::PolicyInfo info = InfoFor(LiberoProfile());
  ActionChunk chunk;
  chunk.model_digest = "model-1";
  chunk.horizon = 10;
  chunk.action_dim = 7;
  EXPECT_TRUE(CheckChunk(chunk, info).ok());
  chunk.action_dim = 8;
  EXPECT_EQ(ErrorReason(CheckChunk(chunk, info)), "BAD_REPLY");
  chunk.model_digest = "model-2";
  EXPECT_EQ(ErrorReason(CheckChunk(chunk, info)), "MODEL_CHANGED");
}

}  // namespace
}  // namespace piserve::client
