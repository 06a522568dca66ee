# SPDX-License-Identifier: Apache-2.0
"""A scripted expert that puts one object into or onto another.

It knows what no robot knows, where things are, and proves that an evaluation
counts successes. It keeps nothing between calls: what to do next follows from
the state alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Tuple

import numpy as np

from .protocol import ACTION_DIM, STATE_DIM

PRIVILEGED_DIM = 12

_OPEN, _CLOSE = -1.0, 1.0
_STEP_M, _STEP_RAD = 0.05, 0.5  # what an action of 1 asks for
_SHARE = 0.26  # of what is asked for that one control step achieves
_GAIN = 1.6  # asks for more than the distance, as the hand lags

_FINGER_OPEN = 0.034  # of one finger's joint; its end is at 0.04
_HOVER = 0.06  # from the object's top to the fingertips when travelling to it
_DEPTH = 0.035  # how deep below the object's top the fingertips grip
_FLOOR = 0.012  # least height of the fingertips above the object's underside
_CLEAR = 0.05  # from the destination's top to the object's underside
_ALIGNED = 0.008
_LOOSE = 0.016
_WIDE = 0.066  # fingers reach around less than this with room to spare


@dataclass(frozen=True)
class Scene:
    """What the expert knows: 8 numbers of the robot, 12 of the simulator.

    hand      [3] between the fingertips, m.
    turn      [3] axis times angle, rad; upright is (pi, 0, 0).
    finger    opening of one finger, 0 (closed) to 0.04 m.
    low, high            [3] corners of the object's bounding box, m.
    goal_low, goal_high  [3] of the destination's.
    """

    hand: np.ndarray
    turn: np.ndarray
    finger: float
    low: np.ndarray
    high: np.ndarray
    goal_low: np.ndarray
    goal_high: np.ndarray

    @classmethod
    def of(cls, state: np.ndarray) -> Scene:
        """Reads float64 [20]; raises ValueError for another length."""
        if state.shape != (STATE_DIM + PRIVILEGED_DIM,):
            raise ValueError(
                f"state: got shape {list(state.shape)}, "
                f"want [{STATE_DIM + PRIVILEGED_DIM}]"
            )
        corners = state[STATE_DIM:].reshape(4, 3)
        finger = float(state[6] - state[7]) / 2
        return cls(state[:3], state[3:6], finger, *corners)

    @property
    def centre(self) -> np.ndarray:
        """[3], of the object's bounding box."""
        middle: np.ndarray = (self.low + self.high) / 2
        return middle

    @property
    def goal(self) -> np.ndarray:
        """[3], of the destination's bounding box."""
        middle: np.ndarray = (self.goal_low + self.goal_high) / 2
        return middle

    @property
    def across(self) -> bool:
        """Whether the hand must turn a quarter to reach around the object."""
        size = self.high - self.low
        return bool(size[1] > _WIDE and size[0] < size[1])

    @property
    def half_width(self) -> float:
        """Half of the object's size along the fingers' way, m."""
        size = self.high - self.low
        return float(size[0] if self.across else size[1]) / 2

    @property
    def grip_height(self) -> float:
        return max(float(self.high[2]) - _DEPTH, float(self.low[2]) + _FLOOR)

    @property
    def near(self) -> bool:
        """Whether the object is between the fingers, gripped or not."""
        inside = float(self.hand[2]) < float(self.high[2]) + 0.004
        return inside and _level(self.hand - self.centre) < 0.025

    @property
    def held(self) -> bool:
        """Whether the fingers are as close as the object lets them."""
        least = 0.25 * self.half_width
        most = min(self.half_width + 0.002, 0.0375)
        return self.near and least < self.finger < most

    def after(self, action: np.ndarray) -> Scene:
        """The scene one step later, the fingers as they are."""
        move = action[:3] * _STEP_M * _SHARE
        hand = self.hand + move
        if not self.held:
            return replace(self, hand=hand)
        return replace(
            self, hand=hand, low=self.low + move, high=self.high + move
        )


def expert_chunk(state: np.ndarray, horizon: int) -> np.ndarray:
    """float64 [horizon, 7] for float64 [20].

    Once the hand opens or closes it stays where it is to the chunk's end, as
    only the next observation tells what it holds.
    """
    scene = Scene.of(state)
    chunk = np.zeros((horizon, ACTION_DIM))
    for row in range(horizon):
        action = _next_action(scene)
        chunk[row] = action
        if (action[6] == _CLOSE) != scene.held:
            chunk[row:] = action
            chunk[row + 1 :, :6] = 0.0
            break
        scene = scene.after(action)
    return chunk


def _next_action(scene: Scene) -> np.ndarray:
    if scene.held:
        return _place(scene)
    over = np.abs(scene.centre - scene.goal)[:2]
    inside = (over < (scene.goal_high - scene.goal_low)[:2] / 2).all()
    if inside and scene.low[2] < scene.goal_high[2] + _CLEAR:
        return _move(scene, (0.0, 0.0, 0.02), _OPEN)
    return _pick(scene)


def _pick(scene: Scene) -> np.ndarray:
    way = scene.centre - scene.hand
    error = _level(way)
    down = scene.hand[2] < scene.grip_height + 0.008
    if down and error < _LOOSE and scene.finger > scene.half_width:
        return _move(scene, (0.0, 0.0, 0.0), _CLOSE)
    if scene.finger < _FINGER_OPEN:
        rise = scene.high[2] + _HOVER - scene.hand[2]
        return _move(scene, (0.0, 0.0, max(0.0, float(rise))), _OPEN)
    low = scene.hand[2] < scene.high[2] + 0.02
    askew = np.abs(_turn_left(scene)).max()
    if error < (_LOOSE if low else _ALIGNED) and askew < 0.12:
        drop = scene.grip_height - scene.hand[2]
        return _move(scene, (way[0], way[1], drop), _OPEN)
    return _travel(scene, way, float(scene.high[2]) + _HOVER, _OPEN)


def _place(scene: Scene) -> np.ndarray:
    way = scene.goal - scene.centre
    error = _level(way)
    if error < 0.02:
        return _move(scene, (0.0, 0.0, 0.0), _OPEN)
    hanging = float(scene.hand[2] - scene.low[2])
    height = float(scene.goal_high[2]) + _CLEAR + hanging
    return _travel(scene, way, height, _CLOSE)


def _travel(
    scene: Scene, way: np.ndarray, height: float, gripper: float
) -> np.ndarray:
    """Moves level at `height`, and no further level than the height allows."""
    rise = height - float(scene.hand[2])
    share = max(0.0, min(1.0, 1.0 - (rise - 0.01) / 0.03))
    return _move(scene, (share * way[0], share * way[1], rise), gripper)


def _move(
    scene: Scene, way: Tuple[float, float, float], gripper: float
) -> np.ndarray:
    move = np.array(way) * _GAIN / _STEP_M
    length = _level(move)
    if length > 1.0:
        move[:2] /= length
    turn = _turn_left(scene) / _STEP_RAD
    action: np.ndarray = np.clip([*move, *turn, gripper], -1.0, 1.0)
    return action


def _turn_left(scene: Scene) -> np.ndarray:
    """[3] axis times angle, rad, from the hand's attitude to the wanted one."""
    upright = np.diag([1.0, -1.0, -1.0])
    if scene.across:
        upright = _rotation(np.array([0.0, 0.0, math.pi / 2])) @ upright
    left = upright @ _rotation(scene.turn).T
    cosine = min(1.0, max(-1.0, (float(np.trace(left)) - 1) / 2))
    angle = math.acos(cosine)
    axis = np.array(
        [
            left[2, 1] - left[1, 2],
            left[0, 2] - left[2, 0],
            left[1, 0] - left[0, 1],
        ]
    )
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        return np.zeros(3)
    turned: np.ndarray = axis / length * angle
    return turned


def _rotation(turn: np.ndarray) -> np.ndarray:
    """[3, 3] of an axis times angle (Rodrigues)."""
    angle = float(np.linalg.norm(turn))
    if angle < 1e-9:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    turned: np.ndarray = (
        np.eye(3)
        + math.sin(angle) * cross
        + (1 - math.cos(angle)) * cross @ cross
    )
    return turned


def _level(way: np.ndarray) -> float:
    return math.hypot(float(way[0]), float(way[1]))
