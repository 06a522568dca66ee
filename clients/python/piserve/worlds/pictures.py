# SPDX-License-Identifier: Apache-2.0
"""Pictures and films as files. Needs Pillow."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Union

import numpy as np

_LAST_FRAME_MS = 1200

_Path = Union[str, "os.PathLike[str]"]


class PictureError(RuntimeError):
    """Pillow is missing, or there is nothing to write."""


def save_png(path: _Path, frame: np.ndarray) -> None:
    """Writes uint8 [height, width, 3] as a PNG."""
    pillow("Image").fromarray(frame).save(path, format="PNG")


def save_gif(path: _Path, frames: List[np.ndarray], fps: float = 10.0) -> None:
    """Writes frames, uint8 [height, width, 3] each, as a GIF that repeats.

    All frames share the colours of the first and the last, so that what stands
    still does not flicker. The last frame stays longer.
    """
    if not frames:
        raise PictureError(f"{path}: got 0 frames, want at least 1")
    image = pillow("Image")
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


def font(size: int) -> Optional[Any]:
    fonts = pillow("ImageFont")
    try:
        return fonts.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return fonts.load_default()


def pillow(module: str) -> Any:
    """A module of Pillow."""
    try:
        return __import__(f"PIL.{module}", fromlist=[module])
    except ImportError as error:
        raise PictureError(
            "pictures need Pillow, which is not installed (from a checkout: "
            "pip install 'clients/python[pictures]')"
        ) from error
