# SPDX-License-Identifier: Apache-2.0
"""What the cameras see: boxes with shadows on a wooden table."""

from __future__ import annotations

import functools
import math
from typing import List, Tuple

import numpy as np

from .camera import BASE_CAMERA, VIEWER, Camera, wrist_camera
from .raster import Canvas, Point, Point3, cut_near, hull
from .state import (
    BLOCK_HALF,
    FINGER_LENGTH,
    PAD_HALF,
    TABLE_HALF_X,
    TABLE_HALF_Y,
    State,
    hand_rotation,
)

_BLOCKS = np.array([[214, 58, 52], [62, 166, 82], [56, 106, 214]], np.float32)
_FINGER = np.array([92, 96, 106], np.float32)
_PALM = np.array([238, 238, 240], np.float32)
_ARM = np.array([226, 228, 232], np.float32)
_JOINT = np.array([240, 180, 62], np.float32)
_PAD_RIM = np.array([246, 240, 226], np.float32)
_PAD = np.array([74, 70, 84], np.float32)
_FLOOR = (126, 132, 142)
_SEAM = (172, 138, 102)
_PLANKS = (
    (212, 179, 138),
    (206, 172, 130),
    (217, 185, 146),
    (201, 166, 124),
    (209, 177, 138),
)
_TABLE_THICKNESS = 0.03
_PLANK_WIDTH = 0.085
_PLANK_LENGTH = 0.31
_SEAM_SHARE = 0.03  # of a plank's width

_LIGHT = np.array([0.28, -0.36, 1.0]) / math.sqrt(0.28**2 + 0.36**2 + 1.0)
_AMBIENT = 0.6
_SHADOW = 0.34  # how much darker it is in a shadow
_SHADOW_BLUR_M = 0.008

_SHOULDER = np.array([-0.36, 0.0, 0.15])
_LINK = 0.34  # length of each of the arm's two links

_SIGNS = np.array(
    [[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64
)
_FACES = np.array(  # corners of the faces -x +x -y +y -z +z, in order around
    [
        [0, 1, 3, 2],
        [4, 5, 7, 6],
        [0, 1, 5, 4],
        [2, 3, 7, 6],
        [0, 2, 6, 4],
        [1, 3, 7, 5],
    ]
)


class _Boxes:
    """Boxes to draw: their centre, axes (columns), half sizes and colour."""

    def __init__(self) -> None:
        self.centres: List[np.ndarray] = []
        self.axes: List[np.ndarray] = []
        self.halves: List[Tuple[float, float, float]] = []
        self.colours: List[np.ndarray] = []

    def add(
        self,
        centre: np.ndarray,
        axes: np.ndarray,
        half: Tuple[float, float, float],
        colour: np.ndarray,
    ) -> None:
        self.centres.append(centre)
        self.axes.append(axes)
        self.halves.append(half)
        self.colours.append(colour)

    def corners(self) -> np.ndarray:
        """float64 [boxes, 8, 3]."""
        local = _SIGNS * np.array(self.halves)[:, np.newaxis, :]
        turned = local @ np.array(self.axes).transpose(0, 2, 1)
        corners: np.ndarray = turned + np.array(self.centres)[:, np.newaxis]
        return corners

    def normals(self) -> np.ndarray:
        """float64 [boxes, 6, 3], in the order of _FACES."""
        columns = np.array(self.axes).transpose(0, 2, 1)
        normals = np.stack([-columns, columns], axis=2)
        return normals.reshape(-1, 6, 3)


def render_base(state: State, size: int) -> np.ndarray:
    """uint8 [size, size, 3], RGB: the table from across it, upright."""
    return _render(state, BASE_CAMERA, size, size, arm=_arm(state))


def render_wrist(state: State, size: int) -> np.ndarray:
    """uint8 [size, size, 3], RGB: what is below and before the fingers."""
    return _render(state, wrist_camera(state), size, size, arm=_Boxes())


def render_view(state: State, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3], RGB: for people, from aside."""
    return _render(state, VIEWER, width, height, arm=_arm(state))


def _render(
    state: State, camera: Camera, width: int, height: int, *, arm: _Boxes
) -> np.ndarray:
    canvas = Canvas(_background(camera, width, height))
    _draw_pad(canvas, camera, state)
    boxes = arm
    _add_blocks(boxes, state)
    _add_hand(boxes, state)
    corners = boxes.corners()
    _draw_shadows(canvas, camera, corners)
    _draw_boxes(canvas, camera, boxes, corners)
    return np.clip(canvas.rgb + 0.5, 0, 255).astype(np.uint8)


# ---------------------------------------------------------------------- things


def _add_blocks(boxes: _Boxes, state: State) -> None:
    half = (BLOCK_HALF, BLOCK_HALF, BLOCK_HALF)
    for block, colour in zip(state.blocks, _BLOCKS):
        cosine, sine = math.cos(block.yaw), math.sin(block.yaw)
        axes = np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1.0]])
        centre = np.array([block.x, block.y, block.z])
        boxes.add(centre, axes, half, colour)


def _add_hand(boxes: _Boxes, state: State) -> None:
    axes = hand_rotation(state)
    tip = np.array([state.x, state.y, state.z])
    length = FINGER_LENGTH / 2

    def put(
        x: float,
        y: float,
        z: float,
        half: Tuple[float, float, float],
        colour: np.ndarray,
    ) -> None:
        boxes.add(tip + axes @ np.array([x, y, z]), axes, half, colour)

    for side in (1.0, -1.0):
        y = side * (state.finger + 0.006)
        put(0.0, y, length, (0.009, 0.006, length), _FINGER)
    put(0.0, 0.0, FINGER_LENGTH + 0.011, (0.014, 0.056, 0.011), _PALM)
    put(0.0, 0.0, FINGER_LENGTH + 0.034, (0.018, 0.018, 0.012), _JOINT)


def _arm(state: State) -> _Boxes:
    """The links from the shoulder behind the table to the hand."""
    boxes = _Boxes()
    wrist = np.array([state.x, state.y, state.z]) + hand_rotation(state) @ (
        np.array([0.0, 0.0, FINGER_LENGTH + 0.06])
    )
    reach = wrist - _SHOULDER
    distance = float(np.linalg.norm(reach))
    along = reach / distance
    up = np.array([0.0, 0.0, 1.0]) - along[2] * along
    up /= np.linalg.norm(up)
    rise = math.sqrt(max(0.0, _LINK**2 - distance**2 / 4))
    elbow = _SHOULDER + reach / 2 + rise * up
    pedestal = _SHOULDER * np.array([1.0, 1.0, 0.5])
    foot = (0.055, 0.055, float(_SHOULDER[2]) / 2)
    boxes.add(pedestal, np.eye(3), foot, _ARM * np.float32(0.8))
    _add_link(boxes, _SHOULDER, elbow, 0.03, _ARM)
    _add_link(boxes, elbow, wrist, 0.022, _ARM)
    joint = 0.034
    boxes.add(elbow, np.eye(3), (joint, joint, joint), _JOINT)
    return boxes


def _add_link(
    boxes: _Boxes,
    start: np.ndarray,
    end: np.ndarray,
    half_width: float,
    colour: np.ndarray,
) -> None:
    along = end - start
    length = float(np.linalg.norm(along))
    along = along / length
    side = np.cross(along, np.array([1e-3, 0.0, 1.0]))
    side /= np.linalg.norm(side)
    axes = np.stack([side, np.cross(along, side), along], axis=1)
    half = (half_width, half_width, length / 2)
    boxes.add((start + end) / 2, axes, half, colour)


# --------------------------------------------------------------------- drawing


def _draw_pad(canvas: Canvas, camera: Camera, state: State) -> None:
    for half, colour in ((PAD_HALF, _PAD_RIM), (PAD_HALF - 0.008, _PAD)):
        square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
        middle = np.array([state.pad_x, state.pad_y, 0.0])
        corners = camera.see(middle + half * square)
        canvas.paint(_pixels(canvas, camera, corners), colour)


def _draw_shadows(canvas: Canvas, camera: Camera, corners: np.ndarray) -> None:
    """Darkens the table where the boxes are between it and the light."""
    ground = corners - corners[..., 2:] * (_LIGHT / _LIGHT[2])
    mask = np.zeros((canvas.height, canvas.width), np.float32)
    distance = max(0.05, float(camera.eye[2]))
    blur = 1.0 + _SHADOW_BLUR_M * camera.focal * canvas.height / distance
    for box in camera.see(ground):
        if box[:, 2].min() > 0.05:  # else a hull in the image is meaningless
            canvas.shade(mask, hull(_pixels(canvas, camera, box)), blur)
    mask *= -_SHADOW
    mask += 1.0
    canvas.rgb *= mask[..., np.newaxis]


def _draw_boxes(
    canvas: Canvas, camera: Camera, boxes: _Boxes, corners: np.ndarray
) -> None:
    normals = boxes.normals()
    middles = corners[:, _FACES].mean(axis=2)
    to_eye = camera.eye - middles
    faces_eye = (to_eye * normals).sum(axis=2) > 0
    light = _AMBIENT + (1 - _AMBIENT) * np.clip(normals @ _LIGHT, -0.15, 1.0)
    distances = (to_eye**2).sum(axis=2)
    seen = camera.see(corners)
    turned = normals @ camera.axes.T
    visible = np.argwhere(faces_eye)
    order = np.argsort(-distances[faces_eye], kind="stable")
    for box, face in visible[order].tolist():
        quad = seen[box, _FACES[face]]
        pixels = _pixels(canvas, camera, quad)
        plane = _near_plane(canvas, camera, turned[box, face], quad[0])
        colour = boxes.colours[box] * np.float32(light[box, face])
        canvas.place(pixels, plane, colour)


def _pixels(canvas: Canvas, camera: Camera, points: np.ndarray) -> List[Point]:
    """Where a polygon [n, 3] (camera's axes) is in the image."""
    scale = camera.focal * canvas.height
    x0, y0 = canvas.width / 2, canvas.height / 2
    return [
        (x0 + scale * x / depth, y0 + scale * y / depth)
        for x, y, depth in cut_near(points.tolist())
    ]


def _near_plane(
    canvas: Canvas, camera: Camera, normal: np.ndarray, point: np.ndarray
) -> Point3:
    """Coefficients of 1/depth over the image of a plane (Canvas.place)."""
    a, b, c = (normal / float(normal @ point)).tolist()
    scale = camera.focal * canvas.height
    a, b = a / scale, b / scale
    return a, b, c - a * canvas.width / 2 - b * canvas.height / 2


# ------------------------------------------------------------------ background


def _background(camera: Camera, width: int, height: int) -> np.ndarray:
    """float32 [height, width, 3]: the bare table and the floor; a new array."""
    if camera is BASE_CAMERA or camera is VIEWER:
        return _smooth_background(camera is VIEWER, width, height).copy()
    return _wood(camera, width, height)


@functools.lru_cache(maxsize=8)
def _smooth_background(viewer: bool, width: int, height: int) -> np.ndarray:
    """The background of a camera that stands still, edges smoothed."""
    camera = VIEWER if viewer else BASE_CAMERA
    fine = _wood(camera, 4 * width, 4 * height)
    _draw_table_sides(Canvas(fine), camera)
    smooth: np.ndarray = fine.reshape(height, 4, width, 4, 3).mean(axis=(1, 3))
    return smooth


def _draw_table_sides(canvas: Canvas, camera: Camera) -> None:
    x, y, low = TABLE_HALF_X, TABLE_HALF_Y, -_TABLE_THICKNESS
    front = [[x, -y, 0], [x, y, 0], [x, y, low], [x, -y, low]]
    side = [[-x, y, 0], [x, y, 0], [x, y, low], [-x, y, low]]
    wood = np.array(_SEAM, np.float32)
    for corners, light in ((front, 0.9), (side, 0.72)):
        seen = camera.see(np.array(corners, np.float64))
        if corners is side and camera.eye[1] <= y:
            continue  # it faces away
        canvas.paint(_pixels(canvas, camera, seen), wood * np.float32(light))


def _wood(camera: Camera, width: int, height: int) -> np.ndarray:
    """Each pixel's ray followed to the table's planks, or to the floor."""
    columns, rows = (r.astype(np.float32) for r in camera.rays(width, height))
    right, down, forward = camera.axes.astype(np.float32)
    fall = (columns * right[2])[np.newaxis] + (rows * down[2] + forward[2])[
        :, np.newaxis
    ]
    np.minimum(fall, np.float32(-1e-4), out=fall)
    reach = np.float32(-camera.eye[2]) / fall
    hits = []
    for axis in (0, 1):
        slope = (columns * right[axis])[np.newaxis] + (
            rows * down[axis] + forward[axis]
        )[:, np.newaxis]
        slope *= reach
        slope += np.float32(camera.eye[axis])
        hits.append(slope)
    wood: np.ndarray = _palette()[_plank(*hits)]
    return wood


def _plank(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The index in _palette of points on the table's plane."""
    across = (y + np.float32(TABLE_HALF_Y)) * np.float32(1 / _PLANK_WIDTH)
    plank = np.floor(across)
    along = (x + np.float32(1.0)) * np.float32(1 / _PLANK_LENGTH)
    along += plank * np.float32(0.37)  # joints are staggered
    piece = np.floor(along)
    tone = np.mod(2 * plank + 3 * piece, len(_PLANKS))
    index: np.ndarray = tone.astype(np.int8)
    index[(across - plank) < _SEAM_SHARE] = len(_PLANKS)
    beyond = (np.abs(x) > TABLE_HALF_X) | (np.abs(y) > TABLE_HALF_Y)
    index[beyond] = len(_PLANKS) + 1
    return index


@functools.lru_cache(maxsize=1)
def _palette() -> np.ndarray:
    return np.array([*_PLANKS, _SEAM, _FLOOR], np.float32)
