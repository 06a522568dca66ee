# SPDX-License-Identifier: Apache-2.0
"""What goes wrong in an episode: a shaky arm, and somebody at the table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Tuple

import numpy as np

from .contact import is_free, move_block
from .dynamics import ACTION_DIM
from .state import (
    BLOCK_HALF,
    BLOCK_SIZE,
    PAD_HALF,
    TABLE_HALF_X,
    TABLE_HALF_Y,
    State,
)

_NUDGE_ROOM = 0.065  # a nudged block comes no closer to another
_HAND_ROOM = 0.08  # nor is it nudged under the hand


@dataclass(frozen=True)
class Perturbations:
    """How much is disturbed.

    action_noise  standard deviation of the Gaussian noise on the six motions of
                  each action, in the action's units (0.1: 2.5 mm, 0.02 rad).
    nudges        how often in an episode a block is nudged: (least, most).
    nudge_m       how far, at most; at least half as far.
    nudge_before  the step before which it happens.
    """

    action_noise: float = 0.1
    nudges: Tuple[int, int] = (0, 2)
    nudge_m: float = 0.04
    nudge_before: int = 40

    def __post_init__(self) -> None:
        least, most = self.nudges
        if self.action_noise < 0 or self.nudge_m < 0:
            raise ValueError(f"got {self}, want no negative size")
        if not 0 <= least <= most:
            raise ValueError(f"nudges: got {self.nudges}, want 0 <= a <= b")
        if self.nudge_before < 1:
            raise ValueError(
                f"nudge_before: got {self.nudge_before}, want at least 1"
            )


NO_PERTURBATIONS = Perturbations(action_noise=0.0, nudges=(0, 0))


class Disturber:
    """One episode's disturbances.

    When and where blocks are nudged is drawn beforehand, so that it does not
    depend on what the policy does.
    """

    def __init__(
        self, perturbations: Perturbations, rng: np.random.Generator
    ) -> None:
        least, most = perturbations.nudges
        count = int(rng.integers(least, most + 1))
        self._nudges = [
            (
                int(rng.integers(1, perturbations.nudge_before + 1)),
                int(rng.integers(3)),
                float(rng.uniform(0.0, 2 * math.pi)),
                perturbations.nudge_m * float(rng.uniform(0.5, 1.0)),
            )
            for _ in range(count)
        ]
        self._noise = perturbations.action_noise
        self._rng = rng

    def shake(self, action: np.ndarray) -> np.ndarray:
        """The action [7] that the arm carries out; the gripper's is kept."""
        noise = self._rng.normal(size=ACTION_DIM - 1)
        shaken = np.array(action, dtype=np.float64)
        if shaken.shape == (ACTION_DIM,):
            shaken[: ACTION_DIM - 1] += self._noise * noise
        return shaken

    def nudge(self, state: State, step: int) -> None:
        """Moves the blocks whose turn it is, where there is room for them."""
        for when, block, angle, distance in self._nudges:
            if when == step:
                _nudge(state, block, angle, distance)


def _nudge(state: State, index: int, angle: float, distance: float) -> None:
    block = state.blocks[index]
    dx, dy = distance * math.cos(angle), distance * math.sin(angle)
    x, y = block.x + dx, block.y + dy
    near_hand = math.hypot(x - state.x, y - state.y) < _HAND_ROOM
    on_pad = (
        max(abs(x - state.pad_x), abs(y - state.pad_y)) < PAD_HALF + BLOCK_SIZE
    )
    on_table = (
        abs(x) < TABLE_HALF_X - 5 * BLOCK_HALF
        and abs(y) < TABLE_HALF_Y - 6 * BLOCK_HALF
    )
    at_rest = block.bottom < 1e-3 and not state.holds(index)
    if (
        at_rest
        and on_table
        and not near_hand
        and not on_pad
        and not state.over_pad(index)
        and is_free(state, x, y, index, _NUDGE_ROOM)
    ):
        move_block(state, index, dx, dy)
