# SPDX-License-Identifier: Apache-2.0
"""The tabletop's cameras for thousands of states at once, in PyTorch.

Draws what piserve.worlds.tabletop.scene draws, with the same constants and in
the same order, so a clone learns from the pictures that it will be shown;
check_render.py holds one against the other. Geometry is float64, pixels are
float32, as there. Left out: the part of a polygon that is nearer to the camera
than a centimetre is not cut off but flattened onto that distance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from piserve.worlds.tabletop import camera as cameras
from piserve.worlds.tabletop import raster, scene
from piserve.worlds.tabletop.state import PAD_HALF
from torch import Tensor

from geometry import (
    Boxes,
    Cameras,
    base_cameras,
    boxes_of,
    const,
    wrist_cameras,
)

_FAR_OUTSIDE = -1e9  # added to an edge where a polygon cannot be
_OFFSET = raster._OFFSET
_HULL_EDGES = 8  # at most, of a box's shadow
_FACES_SEEN = 3  # at most, of a box


# -------------------------------------------------------------------- polygons


@dataclasses.dataclass
class Polygons:
    """Q convex polygons of B images as the separable parts of their edges.

    columns [B, Q, E, W], rows [B, Q, E, H]: their sum over a pixel is the cover
    that an edge allows it.
    """

    columns: Tensor
    rows: Tensor


def _polygons(
    points: Tensor,
    ends: Tensor,
    real: Tensor,
    offset: float,
    soft: Tensor | float,
    size: int,
) -> Polygons:
    """Polygons of edges from `points` to `ends` [B, Q, E, 2], in order around.

    real  bool [B, Q, E]: which of the edges there are.
    """
    area = _cross(points, ends).where(real, 0).sum(-1, keepdim=True)
    step = ends - points
    length = step.norm(dim=-1)
    real = real & (length > 1e-6)
    scale = area.sign() / soft / length.clamp_min(1e-9)
    a, b = -step[..., 1] * scale, step[..., 0] * scale
    c = offset / soft - a * points[..., 0] - b * points[..., 1]
    c = torch.where(real, c, -_FAR_OUTSIDE)  # no edge allows everything
    c = torch.where(area.abs() < raster._LEAST_AREA, _FAR_OUTSIDE, c)
    a, b, c = (torch.where(real, a, 0.0), torch.where(real, b, 0.0), c)
    a, b, c = (part.float() for part in (a, b, c))
    middles = torch.arange(size, device=a.device, dtype=torch.float32) + 0.5
    columns = a[..., None] * middles
    rows = b[..., None] * middles + c[..., None]
    return Polygons(
        columns + _outside(points[..., 0], offset, size)[:, :, None],
        rows + _outside(points[..., 1], offset, size)[:, :, None],
    )


def _outside(at: Tensor, margin: Tensor | float, size: int) -> Tensor:
    """[B, Q, size]: 0 within the bounds of a polygon, far outside beyond."""
    low = torch.floor(at.amin(-1, keepdim=True) - margin)
    high = torch.ceil(at.amax(-1, keepdim=True) + margin)
    index = torch.arange(size, device=at.device)
    within = (index >= low) & (index < high)
    return torch.where(within, 0.0, _FAR_OUTSIDE).float()


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * q[..., 1] - q[..., 0] * p[..., 1]


def _hull(points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of the convex hulls of points [B, Q, 8, 2], in no order.

    The edges of a hull are the pairs that have all points on their left.
    """
    count = points.shape[2]
    start = points[:, :, :, None].expand(-1, -1, -1, count, -1)
    end = points[:, :, None].expand(-1, -1, count, -1, -1)
    step = end - start
    rest = points[:, :, None, None] - start[..., None, :]
    left = _cross(step[..., None, :], rest)
    own = torch.eye(count, dtype=torch.bool, device=points.device)
    on = (left >= -1e-9).all(-1) & ~own
    best = on.flatten(2).float().topk(_HULL_EDGES, dim=2)
    pick = best.indices[..., None].expand(-1, -1, -1, 2)
    return (
        start.flatten(2, 3).gather(2, pick),
        end.flatten(2, 3).gather(2, pick),
        best.values > 0,
    )


# --------------------------------------------------------------------- drawing


def _cover(columns: Tensor, rows: Tensor) -> Tensor:
    """[B, H, W] of one polygon: columns [B, E, W], rows [B, E, H]."""
    least = rows[:, 0, :, None] + columns[:, 0, None, :]
    for edge in range(1, columns.shape[1]):
        allowed = rows[:, edge, :, None] + columns[:, edge, None, :]
        least = torch.minimum(least, allowed)
    return least.clamp(0, 1)


def _shade(mask: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    return torch.maximum(mask, _cover(columns, rows))


def _paint(
    rgb: Tensor, columns: Tensor, rows: Tensor, colour: Tensor
) -> Tensor:
    cover = _cover(columns, rows)[:, None]
    return rgb + (colour[:, :, None, None] - rgb) * cover


def _place(
    rgb: Tensor,
    near: Tensor,
    columns: Tensor,
    rows: Tensor,
    plane: tuple[Tensor, Tensor],
    colour: Tensor,
) -> tuple[Tensor, Tensor]:
    here = plane[1][:, :, None] + plane[0][:, None, :]
    cover = _cover(columns, rows) * (here > near)
    near = torch.where(cover >= _OFFSET, here, near)
    cover = cover[:, None]
    return rgb + (colour[:, :, None, None] - rgb) * cover, near


class Renderer:
    """Draws states of `demonstrations.Demonstrations`.

    compiled  fuse each step's pixel arithmetic; for a GPU.
    """

    def __init__(
        self, device: torch.device, size: int, *, compiled: bool = False
    ) -> None:
        self._size = size
        self._device = device
        background = scene._background(cameras.BASE_CAMERA, size, size)
        self._background = torch.from_numpy(background).to(device)
        self._palette = torch.from_numpy(scene._palette()).to(device)
        wrap: Callable[[Callable], Callable] = (
            (lambda f: torch.compile(f, dynamic=False))
            if compiled
            else (lambda f: f)
        )
        self._shade, self._place = wrap(_shade), wrap(_place)
        self._paint, self._wood = wrap(_paint), wrap(self._draw_wood)

    @torch.inference_mode()
    def base(self, states: Tensor) -> Tensor:
        """uint8 [B, 3, size, size] of states [B, 21] float64."""
        batch = len(states)
        rgb = self._background.permute(2, 0, 1).expand(batch, -1, -1, -1)
        return self._draw(states, base_cameras(states), rgb, arm=True)

    @torch.inference_mode()
    def wrist(self, states: Tensor) -> Tensor:
        """uint8 [B, 3, size, size] of states [B, 21] float64."""
        seen = wrist_cameras(states)
        rgb = self._wood(seen.axes.float(), seen.eye.float())
        return self._draw(states, seen, rgb, arm=False)

    def _draw(
        self, states: Tensor, camera: Cameras, rgb: Tensor, *, arm: bool
    ) -> Tensor:
        rgb = self._draw_pad(rgb, states, camera)
        boxes = boxes_of(states, arm=arm)
        signs = const(scene._SIGNS, states)
        local = signs * boxes.halves[:, :, None]
        corners = local @ boxes.axes.transpose(2, 3) + boxes.centres[:, :, None]
        rgb = self._draw_shadows(rgb, camera, corners)
        rgb = self._draw_boxes(rgb, camera, boxes, corners)
        return (rgb + 0.5).clamp(0, 255).to(torch.uint8)

    def _draw_pad(self, rgb: Tensor, states: Tensor, camera: Cameras) -> Tensor:
        square = [[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]
        middle = torch.zeros_like(states[:, :3])
        middle[:, :2] = states[:, 7:9]
        for half, colour in (
            (PAD_HALF, scene._PAD_RIM),
            (PAD_HALF - 0.008, scene._PAD),
        ):
            corners = middle[:, None] + half * const(square, states)
            quads = self._quads(camera, camera.see(corners)[:, None])
            ink = torch.as_tensor(colour, device=rgb.device)
            rgb = self._paint(
                rgb,
                quads.columns[:, 0],
                quads.rows[:, 0],
                ink.expand(len(states), 3),
            )
        return rgb

    def _draw_shadows(
        self, rgb: Tensor, camera: Cameras, corners: Tensor
    ) -> Tensor:
        light = const(scene._LIGHT / scene._LIGHT[2], corners)
        ground = camera.see(corners - corners[..., 2:] * light)
        distance = camera.eye[:, 2].clamp_min(0.05)
        scale = scene._SHADOW_BLUR_M * camera.focal * self._size
        blur = (1.0 + scale / distance)[:, None, None]
        start, end, real = _hull(self._pixels(camera, ground))
        whole = ground[..., 2].amin(-1) > 0.05
        real = real & whole[..., None]
        shadows = _polygons(start, end, real, blur / 2, blur, self._size)
        mask = torch.zeros_like(rgb[:, 0])
        for index in range(corners.shape[1]):
            mask = self._shade(
                mask, shadows.columns[:, index], shadows.rows[:, index]
            )
        return rgb * (1.0 - scene._SHADOW * mask)[:, None]

    def _draw_boxes(
        self, rgb: Tensor, camera: Cameras, boxes: Boxes, corners: Tensor
    ) -> Tensor:
        faces = torch.as_tensor(scene._FACES, device=rgb.device)
        axes = boxes.axes.transpose(2, 3)
        normals = torch.stack([-axes, axes], dim=3).flatten(2, 3)
        quads = corners[:, :, faces]  # [B, N, 6, 4, 3]
        to_eye = camera.eye[:, None, None] - quads.mean(3)
        facing = (to_eye * normals).sum(-1) > 0
        lit = (normals @ const(scene._LIGHT, corners)).clamp(-0.15, 1.0)
        light = scene._AMBIENT + (1 - scene._AMBIENT) * lit
        colours = boxes.colours[None, :, None] * light[..., None].float()
        distance = (to_eye**2).sum(-1).masked_fill(~facing, 1e9)
        order = distance.flatten(1).argsort(
            dim=1, descending=True, stable=True
        )[:, -_FACES_SEEN * corners.shape[1] :]

        def pick(x: Tensor) -> Tensor:
            """The faces in `order` of x [B, N, 6, ...]."""
            rest = x.shape[3:]
            index = order.view(*order.shape, *[1] * len(rest))
            return x.flatten(1, 2).gather(1, index.expand(-1, -1, *rest))

        seen = camera.see(pick(quads))
        polygons = self._quads(camera, seen)
        turned = pick(normals) @ camera.axes.transpose(1, 2)
        columns, rows = self._near_planes(camera, turned, seen[:, :, 0])
        shown, colours = pick(facing[..., None]), pick(colours)
        polygons.rows.masked_fill_(~shown[..., None], _FAR_OUTSIDE)
        near = torch.zeros_like(rgb[:, 0])
        for index in range(order.shape[1]):
            rgb, near = self._place(
                rgb,
                near,
                polygons.columns[:, index],
                polygons.rows[:, index],
                (columns[:, index], rows[:, index]),
                colours[:, index],
            )
        return rgb

    def _quads(self, camera: Cameras, corners: Tensor) -> Polygons:
        """Of corners [B, Q, 4, 3] in the camera's axes."""
        points = self._pixels(camera, corners)
        real = torch.ones_like(points[..., 0], dtype=torch.bool)
        return _polygons(
            points, points.roll(-1, dims=2), real, _OFFSET, 1.0, self._size
        )

    def _pixels(self, camera: Cameras, points: Tensor) -> Tensor:
        depth = points[..., 2:].clamp_min(raster._NEAR)
        scale = camera.focal * self._size
        return self._size / 2 + scale * points[..., :2] / depth

    def _near_planes(
        self, camera: Cameras, normals: Tensor, points: Tensor
    ) -> tuple[Tensor, Tensor]:
        """1/depth over the image, as column [B, Q, W] and row [B, Q, H]."""
        through = (normals * points).sum(-1, keepdim=True)
        a, b, c = (normals / through).unbind(-1)
        scale, half = camera.focal * self._size, self._size / 2
        a, b = a / scale, b / scale
        c = c - a * half - b * half
        a, b, c = (part.float()[..., None] for part in (a, b, c))
        middles = (
            torch.arange(self._size, device=a.device, dtype=torch.float32) + 0.5
        )
        return a * middles, b * middles + c

    def _draw_wood(self, axes: Tensor, eye: Tensor) -> Tensor:
        """float32 [B, 3, size, size]: the table below the wrist camera."""
        scale = 1.0 / (0.72 * self._size)
        line = torch.arange(self._size, device=axes.device) + 0.5
        line = ((line - self._size / 2) * scale).float()
        right, down, forward = axes.unbind(1)

        def sweep(axis: int) -> Tensor:
            column = line * right[:, axis, None]
            row = line * down[:, axis, None] + forward[:, axis, None]
            return row[:, :, None] + column[:, None, :]

        reach = -eye[:, 2, None, None] / sweep(2).clamp_max(-1e-4)
        x = sweep(0) * reach + eye[:, 0, None, None]
        y = sweep(1) * reach + eye[:, 1, None, None]
        return self._planks(x, y)

    def _planks(self, x: Tensor, y: Tensor) -> Tensor:
        across = (y + scene.TABLE_HALF_Y) * (1 / scene._PLANK_WIDTH)
        plank = torch.floor(across)
        along = (x + 1.0) * (1 / scene._PLANK_LENGTH) + plank * 0.37
        kinds = len(scene._PLANKS)
        tone = torch.remainder(2 * plank + 3 * torch.floor(along), kinds).long()
        tone = torch.where(across - plank < scene._SEAM_SHARE, kinds, tone)
        beyond = (x.abs() > scene.TABLE_HALF_X) | (y.abs() > scene.TABLE_HALF_Y)
        tone = torch.where(beyond, kinds + 1, tone)
        return self._palette[tone].permute(0, 3, 1, 2)


def patches(images: Tensor, patch: int) -> Tensor:
    """[B, 3, S, S] as the rows of a patch kernel: [B, (S/p)^2, 3 p p]."""
    batch, _, size, _ = images.shape
    side = size // patch
    grid = images.view(batch, 3, side, patch, side, patch)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(
        batch, side * side, 3 * patch * patch
    )
