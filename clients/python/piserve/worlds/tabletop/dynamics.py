# SPDX-License-Identifier: Apache-2.0
"""One control step: an action moves the hand, the hand moves the blocks.

The step is 0.1 s, taken in short substeps so that nothing passes through
anything. Plain floats throughout: the same actions give the same bits.
"""

from __future__ import annotations

import math
from typing import Optional

import numpy as np

from .contact import (
    half_extent,
    lowest_tip,
    move_block,
    push_out,
    push_with_fingers,
    settle,
    turned,
)
from .state import (
    BLOCK_HALF,
    FINGER_MAX,
    FINGER_RADIUS,
    REACH_X,
    REACH_Y,
    TILT_MAX,
    TIP_MAX,
    YAW_MAX,
    Grip,
    State,
)

CONTROL_HZ = 10.0
ACTION_DIM = 7
STEP_M = 0.025  # what an action of 1 moves the tip in a step
STEP_RAD = 0.2  # what an action of 1 turns the hand in a step
STEP_FINGER_M = 0.01  # what an action of 1 closes each finger in a step

_SUBSTEPS = 5
_GRIP_YAW = 0.6  # the jaws turn a block that is askew by no more than this
_GRIP_TILT = 0.25  # and hold it only if they lean no more than this
_GRIP_DEPTH = 0.008  # and reach down its sides at least so far
_RELEASE = 0.003


def step(state: State, action: np.ndarray) -> None:
    """Carries out one action [7] on `state`, in place.

    action  dx dy dz (in units of STEP_M, world axes), drx dry drz (in units of
            STEP_RAD, world axes), gripper (+1 closes, -1 opens, 0 stays).
            Values beyond [-1, 1] are clipped.

    Raises ValueError if the shape is another or a value is not finite.
    """
    values = np.asarray(action, dtype=np.float64)
    if values.shape != (ACTION_DIM,):
        raise ValueError(
            f"action: got shape {list(values.shape)}, want [{ACTION_DIM}]"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"action: got {values.tolist()}, want finite numbers")
    part = [max(-1.0, min(1.0, v)) / _SUBSTEPS for v in values.tolist()]
    for _ in range(_SUBSTEPS):
        _turn(state, *(STEP_RAD * v for v in part[3:6]))
        _move_level(state, STEP_M * part[0], STEP_M * part[1])
        _move_upright(state, STEP_M * part[2])
        _move_fingers(state, STEP_FINGER_M * part[6])
    state.moved = settle(state)


def _turn(state: State, rx: float, ry: float, rz: float) -> None:
    state.tilt_x = _clamp(state.tilt_x + rx, TILT_MAX)
    state.tilt_y = _clamp(state.tilt_y + ry, TILT_MAX)
    state.yaw = _clamp(state.yaw + rz, YAW_MAX)
    _carry(state)
    push_with_fingers(state)


def _move_level(state: State, dx: float, dy: float) -> None:
    state.x = _clamp(state.x + dx, REACH_X)
    state.y = _clamp(state.y + dy, REACH_Y)
    _carry(state)
    push_with_fingers(state)


def _move_upright(state: State, dz: float) -> None:
    height = min(state.z + dz, TIP_MAX)
    if dz < 0:
        height = max(height, min(state.z, lowest_tip(state)))
    state.z = height
    _carry(state)


def _carry(state: State) -> None:
    """Puts the held block where the hand has it."""
    grip = state.grip
    if grip is None:
        return
    block = state.blocks[grip.block]
    dx, dy = turned(grip.forward, 0.0, state.yaw)
    block.yaw = state.yaw + grip.yaw
    move_block(
        state,
        grip.block,
        state.x + dx - block.x,
        state.y + dy - block.y,
        state.z + grip.up - block.z,
    )
    push_out(state, grip.block)


def _move_fingers(state: State, closing: float) -> None:
    if closing > 0:
        _close(state, closing)
    elif closing < 0:
        state.finger = min(FINGER_MAX, state.finger - closing)
        if state.grip is not None and state.finger > BLOCK_HALF + _RELEASE:
            state.grip = None
        push_with_fingers(state)


def _close(state: State, closing: float) -> None:
    """Closes the fingers as far as a block between them lets them."""
    wanted = max(0.0, state.finger - closing)
    index = _between_fingers(state)
    if index is None:
        state.finger = wanted
        return
    block = state.blocks[index]
    askew = _askew(block.yaw - state.yaw)
    grips = (
        abs(askew) <= _GRIP_YAW
        and max(abs(state.tilt_x), abs(state.tilt_y)) <= _GRIP_TILT
    )
    narrowest = BLOCK_HALF if grips else half_extent(askew)
    state.finger = min(state.finger, max(wanted, narrowest))
    if state.finger < half_extent(askew):  # the jaws turn it into line
        straight = math.copysign(_askew_at(state.finger), askew)
        block.yaw += straight - askew
        askew = straight
    _centre(state, index, state.finger - half_extent(askew))
    if grips and state.finger <= BLOCK_HALF + 1e-9 and state.grip is None:
        state.grip = _grip_of(state, index)


def _between_fingers(state: State) -> Optional[int]:
    """The block that the closing fingers will meet."""
    if state.grip is not None:
        return state.grip.block
    for index, block in enumerate(state.blocks):
        forward, side = turned(block.x - state.x, block.y - state.y, -state.yaw)
        if (
            abs(forward) < BLOCK_HALF
            and abs(side) < state.finger + FINGER_RADIUS
            and block.bottom - _RELEASE <= state.z <= block.top - _GRIP_DEPTH
        ):
            return index
    return None


def _centre(state: State, index: int, slack: float) -> None:
    """Moves a block between the fingers so that neither is inside it."""
    block = state.blocks[index]
    slack = max(0.0, slack)
    _, side = turned(block.x - state.x, block.y - state.y, -state.yaw)
    shift = _clamp(side, slack) - side
    if shift:
        move_block(state, index, *turned(0.0, shift, state.yaw))
        push_out(state, index)


def _grip_of(state: State, index: int) -> Grip:
    block = state.blocks[index]
    forward, _ = turned(block.x - state.x, block.y - state.y, -state.yaw)
    return Grip(index, forward, block.z - state.z, block.yaw - state.yaw)


def _askew(yaw: float) -> float:
    """The turn of a cube against the jaws, by symmetry within +-pi/4."""
    quarter = math.pi / 2
    return yaw - quarter * round(yaw / quarter)


def _askew_at(finger: float) -> float:
    """How far a block between fingers at this distance is still askew."""
    ratio = min(1.0, finger / (BLOCK_HALF * math.sqrt(2.0)))
    return max(0.0, math.pi / 4 - math.acos(ratio))


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
