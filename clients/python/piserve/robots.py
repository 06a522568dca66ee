# SPDX-License-Identifier: Apache-2.0
"""Robots, and whether a server's policy is one for them.

A policy for another robot may take an observation of the same shape: DROID's
state is as long as LIBERO's. So a client that knows its robot compares names,
units and sizes with what the server says before the first observation is sent.
"""

from __future__ import annotations

from typing import Iterable, NamedTuple, Optional, Tuple

from piserve._proto import policy_pb2
from piserve.errors import PolicyMismatch


class Block(NamedTuple):
    """Consecutive dimensions with one meaning, as GetPolicyInfo names them."""

    name: str
    unit: str  # rad, m, 1 (dimensionless), rad/s
    size: int


class RobotProfile(NamedTuple):
    """What a robot gives and takes.

    cameras  names of the cameras it sends, as the policy calls them.
    state    its state's blocks in order; None: not compared.
    action   the blocks it can carry out, in order; None: not compared.
    """

    name: str
    cameras: Tuple[str, ...]
    state: Optional[Tuple[Block, ...]] = None
    action: Optional[Tuple[Block, ...]] = None


LIBERO = RobotProfile(
    name="LIBERO",
    cameras=("observation/image", "observation/wrist_image"),
    state=(
        Block("eef_position", "m", 3),
        Block("eef_axis_angle", "rad", 3),
        Block("gripper_qpos", "m", 2),
    ),
    action=(
        Block("eef_position_delta", "1", 3),
        Block("eef_axis_angle_delta", "1", 3),
        Block("gripper", "1", 1),
    ),
)

_ARMS = (
    Block("left_joint_position", "rad", 6),
    Block("left_gripper", "1", 1),
    Block("right_joint_position", "rad", 6),
    Block("right_gripper", "1", 1),
)
ALOHA = RobotProfile(
    name="ALOHA",
    cameras=("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist"),
    state=_ARMS,
    action=_ARMS,
)

# Some policies give joint positions instead:
#   DROID._replace(action=(Block("joint_position", "rad", 7), ...))
DROID = RobotProfile(
    name="DROID",
    cameras=(
        "observation/exterior_image_1_left",
        "observation/wrist_image_left",
    ),
    state=(
        Block("joint_position", "rad", 7),
        Block("gripper_position", "1", 1),
    ),
    action=(
        Block("joint_velocity", "1", 7),
        Block("gripper_position", "1", 1),
    ),
)


def check_policy(
    info: policy_pb2.PolicyInfo,
    *,
    robot: Optional[RobotProfile] = None,
    model_digest: str = "",
    preprocessing_checksum: str = "",
) -> None:
    """Raises PolicyMismatch unless the policy is the one that is wanted.

    robot                   None: any.
    model_digest            weights, statistics, tokenizer and configuration;
                            empty: any.
    preprocessing_checksum  all that shapes pixels, state and actions, the norm
                            statistics among it; empty: any.
    """
    if robot is not None:
        _check_cameras(info, robot)
        _check_blocks(info, robot, "state", info.state, robot.state)
        _check_blocks(info, robot, "action", info.action, robot.action)
    if model_digest and info.model_digest != model_digest:
        raise _mismatch(
            info,
            f"has model {info.model_digest}, want {model_digest}",
            "MODEL_DIGEST_MISMATCH",
        )
    checksum = info.preprocessing_checksum
    if preprocessing_checksum and checksum != preprocessing_checksum:
        raise _mismatch(
            info,
            f"normalises by {checksum or 'nothing it tells'}, "
            f"want {preprocessing_checksum}",
            "PREPROCESSING_MISMATCH",
        )


def _check_cameras(info: policy_pb2.PolicyInfo, robot: RobotProfile) -> None:
    known = {camera.name for camera in info.cameras}
    required = {
        camera.name
        for camera in info.cameras
        if camera.use == policy_pb2.CAMERA_USE_REQUIRED
    }
    missing = sorted(required - set(robot.cameras))
    unknown = sorted(set(robot.cameras) - known)
    if missing or unknown:
        raise _mismatch(
            info,
            f"takes cameras {sorted(known)}, {robot.name} sends "
            f"{sorted(robot.cameras)}",
            "CAMERAS_MISMATCH",
        )


def _check_blocks(
    info: policy_pb2.PolicyInfo,
    robot: RobotProfile,
    what: str,
    blocks: Iterable[policy_pb2.Block],
    want: Optional[Tuple[Block, ...]],
) -> None:
    got = tuple(Block(b.name, b.unit, b.size) for b in blocks)
    if want is not None and got != tuple(want):
        raise _mismatch(
            info,
            f"has the {what} {_words(got)}, {robot.name} has {_words(want)}",
            f"{what.upper()}_MISMATCH",
        )


def _words(blocks: Iterable[Block]) -> str:
    return ", ".join(f"{b.name} [{b.size}] in {b.unit}" for b in blocks)


def _mismatch(
    info: policy_pb2.PolicyInfo, message: str, reason: str
) -> PolicyMismatch:
    return PolicyMismatch(f"policy {info.name!r} {message}", reason=reason)
