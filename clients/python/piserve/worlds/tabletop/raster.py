# SPDX-License-Identifier: Apache-2.0
"""Fills convex polygons, with smooth edges and a depth buffer.

A polygon is a short list of points in plain floats, which is faster for so few
than numpy; only the pixels are arrays. Depths are kept as 1/depth, which is
linear over the image of a plane.
"""

from __future__ import annotations

import math
from typing import List, Optional, Tuple

import numpy as np

Point = Tuple[float, float]
Point3 = Tuple[float, float, float]

_OFFSET = 0.75  # cover of a pixel on an edge; faces that meet leave no gap
_NEAR = 0.01  # metres; what is nearer to the camera is cut off
_LEAST_AREA = 1e-3  # pixels; a polygon with less is seen edge on

_Box = Tuple[slice, slice]


class Canvas:
    """An image that is being drawn: float32 RGB, 0 to 255."""

    def __init__(self, background: np.ndarray) -> None:
        """background  float32 [height, width, 3]; it is drawn on."""
        self.rgb = background
        self.height, self.width = background.shape[:2]
        self._near = np.zeros(background.shape[:2], np.float32)
        self._columns = np.arange(self.width, dtype=np.float32) + 0.5
        self._rows = np.arange(self.height, dtype=np.float32) + 0.5

    def paint(self, corners: List[Point], colour: np.ndarray) -> None:
        """Fills a polygon (pixels) over all that is there."""
        found = self._cover(corners, _OFFSET, 1.0)
        if found is not None:
            box, cover = found
            _blend(self.rgb[box], cover, colour)

    def place(
        self, corners: List[Point], plane: Point3, colour: np.ndarray
    ) -> None:
        """Fills a polygon where nothing nearer has been placed.

        plane  1/depth is plane . (column, row, 1), in pixels.
        """
        found = self._cover(corners, _OFFSET, 1.0)
        if found is None:
            return
        box, cover = found
        a, b, c = plane
        columns = np.float32(a) * self._columns[box[1]]
        rows = np.float32(b) * self._rows[box[0]] + np.float32(c)
        near = np.add.outer(rows, columns)
        region = self._near[box]
        cover *= near > region
        _blend(self.rgb[box], cover, colour)
        np.copyto(region, near, where=cover >= _OFFSET)  # not on the fringe

    def shade(
        self, mask: np.ndarray, corners: List[Point], soft: float
    ) -> None:
        """Raises `mask` [height, width] to a polygon's cover, edges blurred.

        soft  width of the blurred edge, pixels.
        """
        found = self._cover(corners, soft / 2, soft)
        if found is not None:
            box, cover = found
            region = mask[box]
            np.maximum(region, cover, out=region)

    def _cover(
        self, corners: List[Point], offset: float, soft: float
    ) -> Optional[Tuple[_Box, np.ndarray]]:
        """How much of each pixel a polygon covers, within its bounds.

        A pixel at distance d inside an edge is covered (d + offset) / soft.
        """
        box = self._bounds(corners, offset)
        edges = _edges(corners, offset, soft) if box is not None else None
        if box is None or edges is None:
            return None
        a, b, c = np.array(edges, np.float32).T
        columns = np.multiply.outer(a, self._columns[box[1]])
        rows = np.multiply.outer(b, self._rows[box[0]])
        rows += c[:, np.newaxis]
        inside = rows[:, :, np.newaxis] + columns[:, np.newaxis, :]
        cover = inside.min(axis=0)
        np.maximum(cover, np.float32(0), out=cover)
        np.minimum(cover, np.float32(1), out=cover)
        return box, cover

    def _bounds(self, corners: List[Point], margin: float) -> Optional[_Box]:
        """The pixels that a polygon may touch; None if it touches none."""
        if len(corners) < 3:
            return None
        columns, rows = zip(*corners)
        left = max(0, math.floor(min(columns) - margin))
        right = min(self.width, math.ceil(max(columns) + margin))
        top = max(0, math.floor(min(rows) - margin))
        bottom = min(self.height, math.ceil(max(rows) + margin))
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)


def cut_near(corners: List[Point3]) -> List[Point3]:
    """The part of a polygon (camera's axes) that is before the camera."""
    if min(corner[2] for corner in corners) >= _NEAR:
        return corners
    kept: List[Point3] = []
    for index, b in enumerate(corners):
        a = corners[index - 1]
        if (a[2] >= _NEAR) != (b[2] >= _NEAR):
            share = (_NEAR - a[2]) / (b[2] - a[2])
            x, y = (a[i] + share * (b[i] - a[i]) for i in (0, 1))
            kept.append((x, y, _NEAR))
        if b[2] >= _NEAR:
            kept.append(b)
    return kept


def hull(points: List[Point]) -> List[Point]:
    """The convex hull of points, in order (Andrew's monotone chain)."""
    ordered = sorted(points)
    return _half_hull(ordered)[:-1] + _half_hull(ordered[::-1])[:-1]


def _half_hull(points: List[Point]) -> List[Point]:
    chain: List[Point] = []
    for point in points:
        while len(chain) > 1 and _turn(chain[-2], chain[-1], point) <= 0:
            chain.pop()
        chain.append(point)
    return chain


def _turn(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _edges(
    corners: List[Point], offset: float, soft: float
) -> Optional[List[Point3]]:
    """(a, b, c) of each edge: a column + b row + c is the cover it allows.

    None for a polygon without an area.
    """
    pairs = list(zip(corners, corners[1:] + corners[:1]))
    area = sum(p[0] * q[1] - q[0] * p[1] for p, q in pairs)
    if abs(area) < _LEAST_AREA:
        return None
    sign = math.copysign(1.0 / soft, area)
    edges: List[Point3] = []
    for (x, y), (next_x, next_y) in pairs:
        length = math.hypot(next_x - x, next_y - y)
        if length > 1e-6:
            a = sign * (y - next_y) / length
            b = sign * (next_x - x) / length
            edges.append((a, b, offset / soft - a * x - b * y))
    return edges


def _blend(region: np.ndarray, cover: np.ndarray, colour: np.ndarray) -> None:
    change = colour - region
    change *= cover[..., np.newaxis]
    region += change
