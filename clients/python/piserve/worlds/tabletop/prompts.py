# SPDX-License-Identifier: Apache-2.0
"""What the robot is told."""

from __future__ import annotations

from typing import Tuple

import numpy as np

from .state import COLOURS

PHRASINGS: Tuple[str, ...] = (
    "put the {colour} block on the pad",
    "place the {colour} block on the pad",
    "move the {colour} block onto the pad",
    "set the {colour} block down on the pad",
    "pick up the {colour} block and put it on the pad",
    "bring the {colour} block to the pad",
)


def draw_prompt(target: int, rng: np.random.Generator) -> str:
    """A phrasing for the block with index `target` of COLOURS."""
    phrasing = PHRASINGS[int(rng.integers(len(PHRASINGS)))]
    return phrasing.format(colour=COLOURS[target])
