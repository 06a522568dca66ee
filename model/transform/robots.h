// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "model/policy_config.h"
#include "model/variant.h"

namespace piserve::transform {

// The model's camera slots, in the order of the pixels.
inline constexpr std::array<std::string_view, Variant::kCameras> kCameraSlots =
    {"base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"};

enum class CameraUse {
  kRequired,
  kOptional,  // missing: zero pixels, masked
  kIgnored,   // accepted and dropped undecoded
};

// A camera of a robot. Strings are literals.
struct CameraSpec {
  std::string_view name;  // on the wire
  CameraUse use = CameraUse::kRequired;
  std::optional<int> slot;  // index into kCameraSlots; none when ignored
};

// A run of consecutive dimensions with one meaning. Strings are literals.
struct Block {
  std::string_view name;
  std::string_view unit;  // rad, m, or 1 where it has none
  int size = 0;
};

// What a robot sends and takes.
struct RobotSpec {
  std::vector<CameraSpec> cameras;
  std::vector<Block> state;
  std::vector<Block> actions;

  int state_dim() const;
  int action_dim() const;
};

// Source: openpi policies/{libero,droid,aloha}_policy.py; docs/pi0.md 4.2.
RobotSpec SpecOf(const PolicyConfig& config);

// Robot state to the model's convention, in place. ALOHA with adapt_to_pi flips
// joints and turns gripper openings into angles; the others change nothing.
//   state  [state_dim], robot units
void TransformState(const PolicyConfig& config, std::span<double> state);

// The model's actions to the robot's, one step in place: the inverse flips and
// gripper conversion.
//   action  [action_dim], after AbsoluteActions
void TransformAction(const PolicyConfig& config, std::span<double> action);

// ALOHA's gripper: a linear opening in [0, 1] to pi's angle, and pi's angle to
// an opening. Outside [0, 1] they do what openpi's do.
double AlohaGripperToAngular(double opening);
double AlohaGripperFromAngular(double angle);

}  // namespace piserve::transform
