// SPDX-License-Identifier: Apache-2.0
#include "model/transform/robots.h"

#include <algorithm>
#include <cmath>

namespace piserve::transform {
namespace {

constexpr int kAlohaDim = 14;
constexpr int kAlohaGrippers[] = {6, 13};
constexpr double kAlohaFlip[kAlohaDim] = {1, -1, -1, 1, 1, 1, 1,
                                          1, -1, -1, 1, 1, 1, 1};

int TotalSize(const std::vector<Block>& blocks) {
  int total = 0;
  for (const Block& block : blocks) total += block.size;
  return total;
}

RobotSpec LiberoSpec() {
  return {.cameras = {{"observation/image", CameraUse::kRequired, 0},
                      {"observation/wrist_image", CameraUse::kRequired, 1}},
          .state = {{"eef_position", "m", 3},
                    {"eef_axis_angle", "rad", 3},
                    {"gripper_qpos", "m", 2}},
          // The simulator's controller scales them; openpi clips nothing.
          .actions = {{"eef_position_delta", "1", 3},
                      {"eef_axis_angle_delta", "1", 3},
                      {"gripper", "1", 1}}};
}

RobotSpec DroidSpec(const PolicyConfig& config) {
  // Policies that add the state back give joint positions, the others give
  // velocities as fractions of the robot's limit.
  const Block joints = config.absolute_actions.empty()
                           ? Block{"joint_velocity", "1", 7}
                           : Block{"joint_position", "rad", 7};
  return {
      .cameras = {{"observation/exterior_image_1_left", CameraUse::kRequired,
                   0},
                  {"observation/wrist_image_left", CameraUse::kRequired, 1}},
      .state = {{"joint_position", "rad", 7}, {"gripper_position", "1", 1}},
      .actions = {joints, {"gripper_position", "1", 1}}};
}

RobotSpec AlohaSpec() {
  const std::vector<Block> arms = {{"left_joint_position", "rad", 6},
                                   {"left_gripper", "1", 1},
                                   {"right_joint_position", "rad", 6},
                                   {"right_gripper", "1", 1}};
  return {.cameras = {{"cam_high", CameraUse::kRequired, 0},
                      {"cam_left_wrist", CameraUse::kOptional, 1},
                      {"cam_right_wrist", CameraUse::kOptional, 2},
                      {"cam_low", CameraUse::kIgnored, std::nullopt}},
          .state = arms,
          .actions = arms};
}

bool AdaptsToPi(const PolicyConfig& config) {
  return config.robot == Robot::kAloha && config.adapt_to_pi;
}

double Normalize(double x, double low, double high) {
  return (x - low) / (high - low);
}

double Unnormalize(double x, double low, double high) {
  return x * (high - low) + low;
}

}  // namespace

int RobotSpec::state_dim() const { return TotalSize(state); }

int RobotSpec::action_dim() const { return TotalSize(actions); }

RobotSpec SpecOf(const PolicyConfig& config) {
  switch (config.robot) {
    case Robot::kLibero:
      return LiberoSpec();
    case Robot::kDroid:
      return DroidSpec(config);
    case Robot::kAloha:
      return AlohaSpec();
  }
  return {};
}

// Source: openpi policies/aloha_policy.py _gripper_to_angular. The literals are
// the gripper's stroke [m], the lengths of its horn and rod [m], and the range
// of pi's angle [rad].
double AlohaGripperToAngular(double opening) {
  constexpr double kHorn = 0.022;
  constexpr double kRod = 0.036;
  const double linear = Unnormalize(opening, 0.01844, 0.05800);
  const double sine =
      (kHorn * kHorn + linear * linear - kRod * kRod) / (2 * kHorn * linear);
  const double angle = std::asin(std::clamp(sine, -1.0, 1.0));
  return Normalize(angle, 0.5476, 1.6296);
}

// Source: openpi policies/aloha_policy.py _gripper_from_angular.
double AlohaGripperFromAngular(double angle) {
  return Normalize(angle + 0.5476, -0.6213, 1.4910);
}

void TransformState(const PolicyConfig& config, std::span<double> state) {
  if (!AdaptsToPi(config)) return;
  for (int i = 0; i < kAlohaDim; ++i) state[i] *= kAlohaFlip[i];
  for (const int i : kAlohaGrippers) state[i] = AlohaGripperToAngular(state[i]);
}

void TransformAction(const PolicyConfig& config, std::span<double> action) {
  if (!AdaptsToPi(config)) return;
  for (int i = 0; i < kAlohaDim; ++i) action[i] *= kAlohaFlip[i];
  for (const int i : kAlohaGrippers) {
    action[i] = AlohaGripperFromAngular(action[i]);
  }
}

}  // namespace piserve::transform
