# SPDX-License-Identifier: Apache-2.0
"""Where the tabletop's boxes and cameras are, for thousands of states at once.

In float64, as in piserve.worlds.tabletop; rows of states are those of
demonstrations.STATE_DIM.
"""

from __future__ import annotations

import dataclasses

import torch
from piserve.worlds.tabletop import camera as cameras
from piserve.worlds.tabletop import scene
from piserve.worlds.tabletop.state import BLOCK_HALF, FINGER_LENGTH
from torch import Tensor


def const(values: object, like: Tensor) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64, device=like.device)


def hand_rotation(states: Tensor) -> Tensor:
    """[B, 3, 3] of rows of states, as state.hand_rotation."""
    yaw, tilt_x, tilt_y = states[:, 3], states[:, 4], states[:, 5]
    angle = torch.hypot(tilt_x, tilt_y)
    safe = angle.clamp_min(1e-30)
    x, y, zero = tilt_x / safe, tilt_y / safe, torch.zeros_like(angle)
    cross = torch.stack(
        [zero, zero, y, zero, zero, -x, -y, x, zero], dim=1
    ).view(-1, 3, 3)
    eye = torch.eye(3, dtype=states.dtype, device=states.device)
    sine = torch.sin(angle)[:, None, None]
    rest = (1 - torch.cos(angle))[:, None, None]
    lean = eye + sine * cross + rest * (cross @ cross)
    return lean @ _turn_about_z(yaw)


def _turn_about_z(yaw: Tensor) -> Tensor:
    c, s = torch.cos(yaw), torch.sin(yaw)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], 1).view(
        -1, 3, 3
    )


@dataclasses.dataclass
class Boxes:
    """Boxes of B scenes: centres [B, N, 3], axes [B, N, 3, 3] (columns), half
    sizes [B, N, 3], colours [N, 3]."""

    centres: Tensor
    axes: Tensor
    halves: Tensor
    colours: Tensor


class _BoxList:
    def __init__(self, batch: int, like: Tensor) -> None:
        self._batch, self._like = batch, like
        self._parts: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def add(
        self, centre: Tensor, axes: Tensor, half: object, colour: object
    ) -> None:
        size = const(half, self._like) if not isinstance(half, Tensor) else half
        self._parts.append(
            (
                centre.expand(self._batch, 3),
                axes.expand(self._batch, 3, 3),
                size.expand(self._batch, 3),
                torch.as_tensor(colour, device=self._like.device),
            )
        )

    def boxes(self) -> Boxes:
        centres, axes, halves, colours = zip(*self._parts, strict=True)
        return Boxes(
            torch.stack(centres, 1),
            torch.stack(axes, 1),
            torch.stack(halves, 1),
            torch.stack(colours),
        )


def boxes_of(states: Tensor, *, arm: bool) -> Boxes:
    """In scene's order: arm, blocks, hand."""
    rotation, tip = hand_rotation(states), states[:, :3]
    found = _BoxList(len(states), states)
    if arm:
        _add_arm(found, rotation, tip)
    for index in range(3):
        block = states[:, 9 + 4 * index : 13 + 4 * index]
        half = [BLOCK_HALF] * 3
        axes = _turn_about_z(block[:, 3])
        found.add(block[:, :3], axes, half, scene._BLOCKS[index])
    for side in (1.0, -1.0):
        y = side * (states[:, 6] + 0.006)
        place = torch.stack(
            [torch.zeros_like(y), y, torch.full_like(y, FINGER_LENGTH / 2)], 1
        )
        centre = tip + (rotation @ place[..., None])[..., 0]
        half = (0.009, 0.006, FINGER_LENGTH / 2)
        found.add(centre, rotation, half, scene._FINGER)
    for height, half, colour in (
        (0.011, (0.014, 0.056, 0.011), scene._PALM),
        (0.034, (0.018, 0.018, 0.012), scene._JOINT),
    ):
        centre = tip + rotation[:, :, 2] * (FINGER_LENGTH + height)
        found.add(centre, rotation, half, colour)
    return found.boxes()


def _add_arm(found: _BoxList, rotation: Tensor, tip: Tensor) -> None:
    shoulder = const(scene._SHOULDER, tip)
    eye = torch.eye(3, dtype=tip.dtype, device=tip.device)
    wrist = tip + rotation[:, :, 2] * (FINGER_LENGTH + 0.06)
    reach = wrist - shoulder
    distance = reach.norm(dim=1, keepdim=True)
    along = reach / distance
    up = const([0.0, 0.0, 1.0], tip) - along[:, 2:] * along
    up = up / up.norm(dim=1, keepdim=True)
    rise = (scene._LINK**2 - distance**2 / 4).clamp_min(0).sqrt()
    elbow = shoulder + reach / 2 + rise * up
    found.add(
        shoulder * const([1.0, 1.0, 0.5], tip),
        eye,
        (0.055, 0.055, float(scene._SHOULDER[2]) / 2),
        scene._ARM * 0.8,
    )
    _add_link(found, shoulder.expand_as(elbow), elbow, 0.03)
    _add_link(found, elbow, wrist, 0.022)
    found.add(elbow, eye, (0.034, 0.034, 0.034), scene._JOINT)


def _add_link(
    found: _BoxList, start: Tensor, end: Tensor, half_width: float
) -> None:
    along = end - start
    length = along.norm(dim=1, keepdim=True)
    along = along / length
    upward = const([1e-3, 0.0, 1.0], start).expand_as(along)
    side = torch.linalg.cross(along, upward)
    side = side / side.norm(dim=1, keepdim=True)
    axes = torch.stack([side, torch.linalg.cross(along, side), along], dim=2)
    width = torch.full_like(length, half_width)
    half = torch.cat([width, width, length / 2], dim=1)
    found.add((start + end) / 2, axes, half, scene._ARM)


@dataclasses.dataclass
class Cameras:
    """B cameras: eye [B, 3], axes [B, 3, 3] (rows), one focal length."""

    eye: Tensor
    axes: Tensor
    focal: float

    def see(self, points: Tensor) -> Tensor:
        """[B, ..., 3] in the cameras' axes."""
        flat = points.flatten(1, -2) - self.eye[:, None]
        return (flat @ self.axes.transpose(1, 2)).view(points.shape)


def base_cameras(states: Tensor) -> Cameras:
    base = cameras.BASE_CAMERA
    batch = len(states)
    return Cameras(
        const(base.eye, states).expand(batch, 3),
        const(base.axes, states).expand(batch, 3, 3),
        base.focal,
    )


def wrist_cameras(states: Tensor) -> Cameras:
    rotation, tip = hand_rotation(states), states[:, :3]
    eye = tip + rotation @ const(cameras._WRIST_EYE, states)
    target = tip + rotation @ const(cameras._WRIST_LOOKS_AT, states)
    forward = target - eye
    forward = forward / forward.norm(dim=1, keepdim=True)
    right = torch.linalg.cross(forward, rotation[:, :, 0])
    right = right / right.norm(dim=1, keepdim=True)
    down = torch.linalg.cross(forward, right)
    return Cameras(eye, torch.stack([right, down, forward], dim=1), 0.72)
