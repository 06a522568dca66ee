# SPDX-License-Identifier: Apache-2.0
"""Pictures and films of an episode for people. Needs Pillow."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Tuple, Union

import numpy as np

from .dynamics import CONTROL_HZ
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
_LAST_FRAME_MS = 1200

_Path = Union[str, "os.PathLike[str]"]


class PictureError(RuntimeError):
    """Pillow is missing, or there is nothing to write."""


def picture(world: Tabletop) -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3], RGB: the table, both cameras, the prompt.

    Raises PictureError if Pillow is missing.
    """
    image = _pillow("Image")
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


def save_png(path: _Path, frame: np.ndarray) -> None:
    """Writes uint8 [height, width, 3] as a PNG."""
    _pillow("Image").fromarray(frame).save(path, format="PNG")


def save_gif(
    path: _Path, frames: List[np.ndarray], fps: float = CONTROL_HZ
) -> None:
    """Writes frames, uint8 [height, width, 3] each, as a GIF that repeats.

    All frames share the colours of the first and the last, so that what stands
    still does not flicker. The last frame stays longer.
    """
    if not frames:
        raise PictureError(f"{path}: got 0 frames, want at least 1")
    image = _pillow("Image")
    both = image.fromarray(np.concatenate([frames[0], frames[-1]]))
    colours = both.quantize(colors=128, method=0, dither=0)
    film = [
        image.fromarray(frame).quantize(palette=colours, dither=0)
        for frame in frames
    ]
    durations = [round(1000 / fps)] * len(film)
    durations[-1] = _LAST_FRAME_MS
    film[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=film[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )


class Film:
    """Keeps a picture of each step: give it to `run_episode` as on_step.

    every  keep one step of so many; the episode's last is always kept.
    """

    def __init__(self, every: int = 1) -> None:
        if every < 1:
            raise ValueError(f"every: got {every}, want at least 1")
        _pillow("Image")  # rather now than after the first step
        self.frames: List[np.ndarray] = []
        self._every = every

    def __call__(self, world: Tabletop) -> None:
        if world.steps == 0:
            self.frames = []
        if world.done or world.steps % self._every == 0:
            self.frames.append(picture(world))


def _write_captions(drawn: Any, world: Tabletop) -> None:
    pen = _pillow("ImageDraw").Draw(drawn)
    pen.text((12, 8), f'"{world.prompt}"', fill=_INK, font=_font(15))
    outcome, colour = _outcome(world)
    text = f"seed {world.seed}   step {world.steps:3d}   "
    small = _font(13)
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


def _font(size: int) -> Optional[Any]:
    fonts = _pillow("ImageFont")
    try:
        return fonts.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return fonts.load_default()


def _pillow(module: str) -> Any:
    """A module of Pillow."""
    try:
        return __import__(f"PIL.{module}", fromlist=[module])
    except ImportError as error:
        raise PictureError(
            "pictures need Pillow, which is not installed: "
            "pip install 'piserve[pictures]'"
        ) from error
