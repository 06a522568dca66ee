# SPDX-License-Identifier: Apache-2.0
"""A scripted expert: it looks at the state and knows what to do next.

It keeps nothing between steps, so its demonstrations can be learned from one
observation at a time, and it can be asked in any state, not only its own.
"""

from __future__ import annotations

import math
from typing import Any, Dict, Mapping, Tuple

import numpy as np

from .contact import turned
from .dynamics import ACTION_DIM, STEP_M, STEP_RAD, step
from .state import (
    BLOCK_HALF,
    BLOCK_SIZE,
    COLOURS,
    FINGER_MAX,
    State,
)
from .world import Tabletop

_HOVER = 0.075  # tip height at which fingers and load clear a block
_GRASP = -0.004  # where the tip grips, against the block's centre
_OPEN, _CLOSE = -1.0, 1.0
_ALIGNED = 0.008  # horizontal error that lets the hand go down
_LOOSE = 0.014  # and the one that sends it up again


class Expert:
    """The expert of one world, as a policy.

    horizon  actions in a chunk. The first is for the present state, the next
             for the states that would follow without disturbances.
    """

    def __init__(self, world: Tabletop, horizon: int = 1) -> None:
        if horizon < 1:
            raise ValueError(f"horizon: got {horizon}, want at least 1")
        self._world = world
        self._horizon = horizon

    def infer(self, obs: Mapping[str, Any]) -> Dict[str, Any]:
        """{"actions": float64 [horizon, 7]}; looks at the world, not at obs."""
        world = self._world
        chunk = expert_chunk(world.state, world.target, self._horizon)
        return {"actions": chunk}

    def reset(self) -> None:
        """Nothing to do: the expert remembers nothing."""


def expert_chunk(state: State, target: int, horizon: int) -> np.ndarray:
    """float64 [horizon, 7]: what the expert does if nothing disturbs it."""
    chunk = np.zeros((horizon, ACTION_DIM))
    chunk[0] = expert_action(state, target)
    ahead = state.copy() if horizon > 1 else state
    for row in range(1, horizon):
        step(ahead, chunk[row - 1])
        chunk[row] = expert_action(ahead, target)
    return chunk


def expert_action(state: State, target: int) -> np.ndarray:
    """float64 [7] in [-1, 1]: the next action towards `target` on the pad."""
    if not 0 <= target < len(COLOURS):
        raise ValueError(f"target: got {target}, want 0 to {len(COLOURS) - 1}")
    if state.holds(target):
        return _place(state, target)
    if state.grip is not None or state.on_pad(target):
        return _action(state, (state.x, state.y, _HOVER + 0.04), 0.0, _OPEN)
    return _pick(state, target)


def _pick(state: State, target: int) -> np.ndarray:
    block = state.blocks[target]
    turn = _askew(block.yaw - state.yaw)
    error = math.hypot(block.x - state.x, block.y - state.y)
    grasp_z = max(block.z + _GRASP, 0.006)
    forward, _ = turned(block.x - state.x, block.y - state.y, -state.yaw)
    down = state.z < grasp_z + 0.006
    around = (
        state.z < block.top - 0.008
        and abs(forward) < _LOOSE
        and error < FINGER_MAX
    )
    if around and (down or state.finger < FINGER_MAX - 0.006):
        return _action(state, (block.x, block.y, grasp_z), turn, _CLOSE)
    ready = state.finger > FINGER_MAX - 0.006 and abs(turn) < 0.25
    low = state.z < block.top + 0.03
    if ready and error < (_LOOSE if low else _ALIGNED):
        return _action(state, (block.x, block.y, grasp_z), turn, _OPEN)
    above = max(_HOVER, block.top + 0.035)
    return _travel(state, (block.x, block.y), above, turn, _OPEN)


def _place(state: State, target: int) -> np.ndarray:
    grip = state.grip
    assert grip is not None
    block = state.blocks[target]
    pad = (
        state.x + state.pad_x - block.x,
        state.y + state.pad_y - block.y,
    )
    error = math.hypot(state.pad_x - block.x, state.pad_y - block.y)
    lying = BLOCK_HALF - grip.up  # tip height with the block on the pad
    low = block.bottom < 0.03
    if error < (0.025 if low else 0.012):
        gripper = _OPEN if block.bottom < 0.006 else _CLOSE
        return _action(state, (*pad, lying), 0.0, gripper)
    above = BLOCK_SIZE + 0.03 - grip.up + BLOCK_HALF
    return _travel(state, pad, above, 0.0, _CLOSE)


def _travel(
    state: State,
    to: Tuple[float, float],
    height: float,
    turn: float,
    gripper: float,
) -> np.ndarray:
    """Moves level at `height`, and no further level than the height allows."""
    clear = (state.z - height + 0.03) / 0.03
    share = max(0.0, min(1.0, clear))
    x = state.x + share * (to[0] - state.x)
    y = state.y + share * (to[1] - state.y)
    return _action(state, (x, y, height), turn, gripper)


def _action(
    state: State,
    to: Tuple[float, float, float],
    turn: float,
    gripper: float,
) -> np.ndarray:
    """One step towards a tip position and a turn, upright."""
    move = np.array([to[0] - state.x, to[1] - state.y, to[2] - state.z])
    move /= STEP_M
    length = float(np.hypot(move[0], move[1]))
    if length > 1.0:
        move[:2] /= length  # a straight way, not a diagonal one first
    turns = np.array([-state.tilt_x, -state.tilt_y, turn]) / STEP_RAD
    action: np.ndarray = np.clip([*move, *turns, gripper], -1.0, 1.0)
    return action


def _askew(yaw: float) -> float:
    """The smallest turn that lines the fingers up with a cube's faces."""
    quarter = math.pi / 2
    return yaw - quarter * round(yaw / quarter)
