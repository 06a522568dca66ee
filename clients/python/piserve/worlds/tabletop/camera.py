# SPDX-License-Identifier: Apache-2.0
"""A pinhole camera, and the two that the robot has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

import numpy as np

from .state import State, hand_rotation

_WRIST_EYE = np.array([-0.085, 0.0, 0.085])  # in the hand's axes, from the tip
_WRIST_LOOKS_AT = np.array([-0.05, 0.0, 0.0])


@dataclass(frozen=True)
class Camera:
    """Where a camera is and how it looks.

    eye    float64 [3], metres.
    axes   float64 [3, 3], rows: image right, image down, forward.
    focal  focal length, in units of the image's height.
    """

    eye: np.ndarray
    axes: np.ndarray
    focal: float

    def see(self, points: np.ndarray) -> np.ndarray:
        """World points [..., 3] in the camera's axes; [..., 2] is the depth."""
        seen: np.ndarray = (points - self.eye) @ self.axes.T
        return seen

    def rays(self, width: int, height: int) -> Tuple[np.ndarray, np.ndarray]:
        """x/depth of the pixel columns' middles and y/depth of the rows'."""
        scale = 1.0 / (self.focal * height)
        columns = (np.arange(width) + 0.5 - width / 2) * scale
        rows = (np.arange(height) + 0.5 - height / 2) * scale
        return columns, rows


def look_at(
    eye: np.ndarray, target: np.ndarray, up: np.ndarray, focal: float
) -> Camera:
    """A camera at `eye` that has `target` in the middle and `up` upwards."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, up)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    return Camera(eye, np.stack([right, down, forward]), focal)


BASE_CAMERA = look_at(
    np.array([0.54, 0.0, 0.66]),
    np.array([-0.005, 0.0, 0.035]),
    np.array([0.0, 0.0, 1.0]),
    focal=1.62,
)
"""Across the table from the robot."""

VIEWER = look_at(
    np.array([0.76, 0.46, 0.66]),
    np.array([-0.04, 0.02, 0.055]),
    np.array([0.0, 0.0, 1.0]),
    focal=1.14,
)
"""For people: from aside, with the arm in view."""


def wrist_camera(state: State) -> Camera:
    """The camera on the hand: the fingertips are left and right below it."""
    rotation = hand_rotation(state)
    tip = np.array([state.x, state.y, state.z])
    return look_at(
        tip + rotation @ _WRIST_EYE,
        tip + rotation @ _WRIST_LOOKS_AT,
        rotation[:, 0],
        focal=0.72,
    )
