// SPDX-License-Identifier: Apache-2.0
#include "clients/cpp/piserve/policy_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "clients/cpp/piserve/status.h"

namespace piserve::client {
namespace {

using Blocks = google::protobuf::RepeatedPtrField<v1::Block>;

absl::Status Mismatch(const v1::PolicyInfo& info, const std::string& message,
                      absl::string_view reason) {
  return WithReason(absl::FailedPreconditionError(
                        absl::StrCat("policy '", info.name(), "' ", message)),
                    reason);
}

bool Sends(const RobotProfile& robot, const std::string& camera) {
  return std::find(robot.cameras.begin(), robot.cameras.end(), camera) !=
         robot.cameras.end();
}

absl::Status CheckCameras(const v1::PolicyInfo& info,
                          const RobotProfile& robot) {
  if (robot.cameras.empty()) return absl::OkStatus();
  std::vector<std::string> known;
  std::size_t sent = 0;
  bool complete = true;
  for (const v1::Camera& camera : info.cameras()) {
    known.push_back(camera.name());
    if (Sends(robot, camera.name())) {
      ++sent;
    } else if (camera.use() == v1::CAMERA_USE_REQUIRED) {
      complete = false;
    }
  }
  if (complete && sent == robot.cameras.size()) return absl::OkStatus();
  return Mismatch(
      info,
      absl::StrCat("takes cameras ", absl::StrJoin(known, ", "), "; ",
                   robot.name, " sends ", absl::StrJoin(robot.cameras, ", ")),
      kReasonCamerasMismatch);
}

// Of v1::Block and of BlockSpec, to be compared and shown.
std::string Words(const std::string& name, const std::string& unit, int size) {
  return absl::StrCat(name, " [", size, "] in ", unit);
}

absl::Status CheckBlocks(const v1::PolicyInfo& info, const std::string& robot,
                         const std::vector<BlockSpec>& want,
                         const Blocks& blocks, absl::string_view reason) {
  if (want.empty()) return absl::OkStatus();
  std::vector<std::string> theirs;
  std::vector<std::string> ours;
  for (const v1::Block& block : blocks) {
    theirs.push_back(Words(block.name(), block.unit(), block.size()));
  }
  for (const BlockSpec& block : want) {
    ours.push_back(Words(block.name, block.unit, block.size));
  }
  if (theirs == ours) return absl::OkStatus();
  return Mismatch(info,
                  absl::StrCat("has ", absl::StrJoin(theirs, ", "), "; ", robot,
                               " has ", absl::StrJoin(ours, ", ")),
                  reason);
}

absl::Status CheckDigest(const v1::PolicyInfo& info, const std::string& got,
                         const std::string& want, absl::string_view reason) {
  if (want.empty() || got == want) return absl::OkStatus();
  return Mismatch(info, absl::StrCat("has '", got, "', want '", want, "'"),
                  reason);
}

}  // namespace

RobotProfile LiberoProfile() {
  return {.name = "LIBERO",
          .cameras = {"observation/image", "observation/wrist_image"},
          .state = {{"eef_position", "m", 3},
                    {"eef_axis_angle", "rad", 3},
                    {"gripper_qpos", "m", 2}},
          .action = {{"eef_position_delta", "1", 3},
                     {"eef_axis_angle_delta", "1", 3},
                     {"gripper", "1", 1}}};
}

RobotProfile AlohaProfile() {
  const std::vector<BlockSpec> arms = {{"left_joint_position", "rad", 6},
                                       {"left_gripper", "1", 1},
                                       {"right_joint_position", "rad", 6},
                                       {"right_gripper", "1", 1}};
  return {
      .name = "ALOHA",
      .cameras = {"cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"},
      .state = arms,
      .action = arms};
}

RobotProfile DroidProfile() {
  return {.name = "DROID",
          .cameras = {"observation/exterior_image_1_left",
                      "observation/wrist_image_left"},
          .state = {{"joint_position", "rad", 7}, {"gripper_position", "1", 1}},
          .action = {{"joint_velocity", "1", 7}, {"gripper_position", "1", 1}}};
}

absl::Status CheckPolicy(const v1::PolicyInfo& info, const Expectation& want) {
  const RobotProfile& robot = want.robot;
  for (const absl::Status& status :
       {CheckCameras(info, robot),
        CheckBlocks(info, robot.name, robot.state, info.state(),
                    kReasonStateMismatch),
        CheckBlocks(info, robot.name, robot.action, info.action(),
                    kReasonActionMismatch),
        CheckDigest(info, info.model_digest(), want.model_digest,
                    kReasonModelDigestMismatch),
        CheckDigest(info, info.preprocessing_checksum(),
                    want.preprocessing_checksum,
                    kReasonPreprocessingMismatch)}) {
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status CheckChunk(const ActionChunk& chunk, const v1::PolicyInfo& info) {
  if (chunk.model_digest != info.model_digest()) {
    return Mismatch(info,
                    absl::StrCat("answered by model '", chunk.model_digest,
                                 "', want '", info.model_digest(), "'"),
                    kReasonModelChanged);
  }
  int width = 0;
  for (const v1::Block& block : info.action()) width += block.size();
  if (chunk.horizon == static_cast<int>(info.action_horizon()) &&
      chunk.action_dim == width) {
    return absl::OkStatus();
  }
  return WithReason(absl::InternalError(absl::StrCat(
                        "actions: got [", chunk.horizon, ", ", chunk.action_dim,
                        "], want [", info.action_horizon(), ", ", width, "]")),
                    kReasonBadReply);
}

}  // namespace piserve::client
