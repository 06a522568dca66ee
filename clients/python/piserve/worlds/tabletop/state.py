# SPDX-License-Identifier: Apache-2.0
"""What there is on the table, and where: the whole physical state.

Metres and radians. The origin is the middle of the table's surface; x points
from the robot to the base camera, y to that camera's right, z up.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import List, Optional, Tuple

import numpy as np

COLOURS: Tuple[str, ...] = ("red", "green", "blue")

TABLE_HALF_X = 0.28
TABLE_HALF_Y = 0.34
BLOCK_HALF = 0.02  # a block is a cube of 4 cm
BLOCK_SIZE = 2 * BLOCK_HALF
PAD_HALF = 0.06  # the pad is a square of 12 cm, too thin to matter

REACH_X = 0.21  # the fingertips stay within +-REACH of the middle
REACH_Y = 0.25
TIP_MIN = 0.004
TIP_MAX = 0.28
TILT_MAX = 0.35
YAW_MAX = 1.5

FINGER_MAX = 0.04  # each finger's distance from the middle, wide open
FINGER_RADIUS = 0.007  # a finger is about a pencil of this radius
FINGER_LENGTH = 0.045  # from the tip to the palm
PALM_RADIUS = 0.03


@dataclass
class Block:
    """A cube that stays level: its centre and its turn about z."""

    x: float
    y: float
    z: float
    yaw: float

    @property
    def top(self) -> float:
        return self.z + BLOCK_HALF

    @property
    def bottom(self) -> float:
        return self.z - BLOCK_HALF


@dataclass
class Grip:
    """Which block the fingers hold and where it is, seen from the hand."""

    block: int
    forward: float  # across the fingers' line
    up: float
    yaw: float


@dataclass
class State:
    """A hand with two fingers, the blocks in the order of COLOURS, the pad.

    x, y, z  the point between the fingertips.
    tilt_x, tilt_y  rotation vector that leans the hand; 0: fingers straight
             down. At most TILT_MAX each.
    yaw      turn of the hand about z; 0: the fingers open along y.
    finger   distance of each finger from the middle, 0 to FINGER_MAX.
    """

    x: float
    y: float
    z: float
    yaw: float
    pad_x: float
    pad_y: float
    blocks: List[Block]
    tilt_x: float = 0.0
    tilt_y: float = 0.0
    finger: float = FINGER_MAX
    grip: Optional[Grip] = None
    moved: bool = False  # a block fell or slid in the last step

    def copy(self) -> State:
        """A state that shares nothing with this one."""
        return copy.deepcopy(self)

    def holds(self, block: int) -> bool:
        return self.grip is not None and self.grip.block == block

    def on_pad(self, block: int) -> bool:
        """Whether the whole block lies on the pad, and on nothing else."""
        at = self.blocks[block]
        room = PAD_HALF - BLOCK_HALF
        return (
            abs(at.x - self.pad_x) <= room
            and abs(at.y - self.pad_y) <= room
            and abs(at.bottom) < 0.003
        )

    def over_pad(self, block: int) -> bool:
        """Whether the block's centre is over the pad, at any height."""
        at = self.blocks[block]
        return (
            abs(at.x - self.pad_x) <= PAD_HALF
            and abs(at.y - self.pad_y) <= PAD_HALF
        )


def hand_rotation(state: State) -> np.ndarray:
    """float64 [3, 3]: the hand's axes as columns, z up when it is upright."""
    lean = _rotation(state.tilt_x, state.tilt_y, 0.0)
    turn = _rotation(0.0, 0.0, state.yaw)
    product: np.ndarray = lean @ turn
    return product


def proprioception(state: State) -> np.ndarray:
    """float64 [8], LIBERO's order: tip x y z [m], axis-angle [rad], fingers.

    The axis-angle is measured from the upright hand, so that it is continuous
    wherever the hand can go. The fingers are +q and -q [m], q from 0 (shut) to
    FINGER_MAX.
    """
    turn = _axis_angle(hand_rotation(state))
    q = state.finger
    return np.array([state.x, state.y, state.z, *turn, q, -q])


def _rotation(x: float, y: float, z: float) -> np.ndarray:
    """Rodrigues' formula for the rotation vector (x, y, z)."""
    angle = math.sqrt(x * x + y * y + z * z)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = x / angle, y / angle, z / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    rotation: np.ndarray = (
        np.eye(3)
        + math.sin(angle) * cross
        + (1.0 - math.cos(angle)) * (cross @ cross)
    )
    return rotation


def _axis_angle(rotation: np.ndarray) -> Tuple[float, float, float]:
    """The rotation vector of a turn of less than pi."""
    x = float(rotation[2, 1] - rotation[1, 2]) / 2
    y = float(rotation[0, 2] - rotation[2, 0]) / 2
    z = float(rotation[1, 0] - rotation[0, 1]) / 2
    sine = math.sqrt(x * x + y * y + z * z)
    if sine < 1e-12:
        return 0.0, 0.0, 0.0
    cosine = (float(np.trace(rotation)) - 1) / 2
    scale = math.atan2(sine, cosine) / sine
    return x * scale, y * scale, z * scale
