# SPDX-License-Identifier: Apache-2.0
"""Pictures and films of an episode for people. Needs Pillow."""

from __future__ import annotations

from typing import Any, List, Tuple

import numpy as np

from ..pictures import font, pillow
from .scene import render_base, render_view, render_wrist
from .world import Tabletop

WIDTH = 640  # of a picture, pixels
HEIGHT = 432

_CAMERA = 200  # width and height of the robot's own cameras in it
_VIEW_WIDTH = WIDTH - _CAMERA
_CAPTION = HEIGHT - 2 * _CAMERA
_PAPER = (24, 26, 31)
_INK = (236, 238, 242)
_QUIET = (168, 174, 186)
_GOOD = (98, 212, 124)
_BAD = (240, 110, 100)


def picture(world: Tabletop) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3], RGB: the table, both cameras, the prompt.

    Raises PictureError if Pillow is missing.
    """
    image = pillow("Image")
    page = np.empty((HEIGHT, WIDTH, 3), np.uint8)
    page[:_CAPTION] = _PAPER
    rest = HEIGHT - _CAPTION
    page[_CAPTION:, :_VIEW_WIDTH] = render_view(world.state, _VIEW_WIDTH, rest)
    middle = _CAPTION + _CAMERA
    page[_CAPTION:middle, _VIEW_WIDTH:] = render_base(world.state, _CAMERA)
    page[middle:, _VIEW_WIDTH:] = render_wrist(world.state, _CAMERA)
    page[_CAPTION:, _VIEW_WIDTH - 1 : _VIEW_WIDTH + 1] = _PAPER
    page[middle - 1 : middle + 1, _VIEW_WIDTH:] = _PAPER
    drawn = image.fromarray(page)
    _write_captions(drawn, world)
    return np.asarray(drawn).copy()


class Film:
    """Keeps a picture of each step: give it to `run_episode` as on_step.

    every  keep one step of so many; the episode's last is always kept.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every: got {every}, want at least 1")
        pillow("Image")  # rather now than after the first step
        self.frames: List[np.ndarray] = []
        self._every = every

    def __call__(self, world: Tabletop) -> None:
        if world.steps == 0:
            self.frames = []
        if world.done or world.steps % self._every == 0:
            self.frames.append(picture(world))


def _write_captions(drawn: Any, world: Tabletop) -> None:
    pen = pillow("ImageDraw").Draw(drawn)
    pen.text((12, 8), f'"{world.prompt}"', fill=_INK, font=font(15))
    outcome, colour = _outcome(world)
    text = f"seed {world.seed}   step {world.steps:3d}   "
    small = font(13)
    width = pen.textlength(text + "success", font=small)
    left = WIDTH - 14 - width
    pen.text((left, 9), text, fill=_QUIET, font=small)
    left += pen.textlength(text, font=small)
    pen.text((left, 9), outcome, fill=colour, font=small)
    for name, top in (("base", _CAPTION), ("wrist", _CAPTION + _CAMERA)):
        low = top + _CAMERA - 20
        for shift, ink in ((1, _PAPER), (0, _INK)):
            place = (_VIEW_WIDTH + 8 + shift, low + shift)
            pen.text(place, name, fill=ink, font=small)


def _outcome(world: Tabletop) -> Tuple[str, Tuple[int, int, int]]:
    if world.success:
        return "success", _GOOD
    if world.done:
        return "failure", _BAD
    return "", _QUIET
