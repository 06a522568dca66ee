# SPDX-License-Identifier: Apache-2.0
"""Blocks that carry, push and support each other.

Motion is quasi-static: a block moves only while something moves it, or falls.
"""

from __future__ import annotations

import math
from typing import Iterator, Optional, Tuple

from .state import (
    BLOCK_HALF,
    BLOCK_SIZE,
    FINGER_LENGTH,
    FINGER_RADIUS,
    PALM_RADIUS,
    TABLE_HALF_X,
    TABLE_HALF_Y,
    TIP_MIN,
    Block,
    State,
)

_TOUCH = 0.002  # faces closer than this rest on each other
_FALL = 0.049  # what a body falls in a step of 0.1 s
_SLIDE = 0.008  # how far a block that tips over an edge slides in a step
_PUSH_DEPTH = 3  # a push goes on through at most so many blocks


def turned(x: float, y: float, yaw: float) -> Tuple[float, float]:
    """(x, y) turned by yaw."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return cosine * x - sine * y, sine * x + cosine * y


def half_extent(yaw: float) -> float:
    """Half of a block's extent along an axis that it is turned from by yaw."""
    return BLOCK_HALF * (abs(math.cos(yaw)) + abs(math.sin(yaw)))


def move_block(
    state: State, block: int, dx: float, dy: float, dz: float = 0.0
) -> None:
    """Moves a block and all that rests on it; what lies on its way is pushed.

    Blocks stop at the table's edge.
    """
    pile = [block, *_riders(state, block)]
    for index in pile:
        at = state.blocks[index]
        at.x = _clamp(at.x + dx, TABLE_HALF_X - BLOCK_HALF)
        at.y = _clamp(at.y + dy, TABLE_HALF_Y - BLOCK_HALF)
        at.z += dz


def push_out(state: State, pusher: int, depth: int = _PUSH_DEPTH) -> None:
    """Moves the blocks that `pusher` has run into out of its way."""
    if depth == 0:
        return
    by = state.blocks[pusher]
    for index, other in enumerate(state.blocks):
        if index == pusher or state.holds(index):
            continue
        if abs(by.z - other.z) >= BLOCK_SIZE - _TOUCH:
            continue  # one is above the other
        along_x, along_y, u, v = _overlap(other, by)
        if along_x <= 0 or along_y <= 0:
            continue
        if along_x < along_y:
            shift = turned(math.copysign(along_x, u), 0.0, by.yaw)
        else:
            shift = turned(0.0, math.copysign(along_y, v), by.yaw)
        move_block(state, index, *shift)
        push_out(state, index, depth - 1)


def push_with_fingers(state: State) -> None:
    """Moves blocks out of the fingers, except the one that they hold."""
    for x, y in fingers(state):
        for index, block in enumerate(state.blocks):
            if state.holds(index) or not _beside(state, block):
                continue
            u, v = turned(x - block.x, y - block.y, -block.yaw)
            gap_u, gap_v = abs(u) - BLOCK_HALF, abs(v) - BLOCK_HALF
            if gap_u >= FINGER_RADIUS or gap_v >= FINGER_RADIUS:
                continue
            if gap_u > gap_v:
                depth = FINGER_RADIUS - gap_u
                shift = turned(-math.copysign(depth, u), 0.0, block.yaw)
            else:
                depth = FINGER_RADIUS - gap_v
                shift = turned(0.0, -math.copysign(depth, v), block.yaw)
            move_block(state, index, *shift)
            push_out(state, index)


def fingers(state: State) -> Iterator[Tuple[float, float]]:
    """The (x, y) of the two fingers' middles."""
    reach = state.finger + FINGER_RADIUS
    for side in (reach, -reach):
        dx, dy = turned(0.0, side, state.yaw)
        yield state.x + dx, state.y + dy


def lowest_tip(state: State) -> float:
    """How low the fingertips may go at their place.

    They stop on the table and on blocks; the palm stops on a block between the
    fingers, and a held block on whatever is below it.
    """
    lowest = TIP_MIN
    for index, block in enumerate(state.blocks):
        if state.holds(index):
            gap = block.bottom - support(state, index)
            lowest = max(lowest, state.z - gap)
            continue
        if state.z >= block.top - _TOUCH and any(
            _covers(block, x, y, FINGER_RADIUS) for x, y in fingers(state)
        ):
            lowest = max(lowest, block.top)
        if _covers(block, state.x, state.y, PALM_RADIUS - BLOCK_HALF):
            lowest = max(lowest, block.top - FINGER_LENGTH)
    return lowest


def support(state: State, block: int) -> float:
    """The height of what a block would land on: a block's top, or the table."""
    under = _under(state, block)
    return 0.0 if under is None else state.blocks[under].top


def settle(state: State) -> bool:
    """Lets blocks fall and slide for one step; whether any of them moved."""
    moved = False
    order = sorted(range(len(state.blocks)), key=lambda i: state.blocks[i].z)
    for index in order:
        if state.holds(index):
            continue
        block = state.blocks[index]
        gap = block.bottom - support(state, index)
        if gap > 1e-9:
            block.z -= min(gap, _FALL)
            moved = True
        under = _under(state, index)
        if under is not None and gap < _TOUCH:
            moved = _slide_off(block, state.blocks[under]) or moved
    return moved


def is_free(state: State, x: float, y: float, ignore: int, room: float) -> bool:
    """Whether no block but `ignore` has its centre within `room` of (x, y)."""
    return all(
        index == ignore or math.hypot(block.x - x, block.y - y) >= room
        for index, block in enumerate(state.blocks)
    )


def _slide_off(block: Block, under: Block) -> bool:
    """Slides a block whose centre is over the edge away from that edge."""
    u, v = turned(block.x - under.x, block.y - under.y, -under.yaw)
    if max(abs(u), abs(v)) <= BLOCK_HALF:
        return False
    if abs(u) > abs(v):
        dx, dy = turned(math.copysign(_SLIDE, u), 0.0, under.yaw)
    else:
        dx, dy = turned(0.0, math.copysign(_SLIDE, v), under.yaw)
    block.x += dx
    block.y += dy
    return True


def _under(state: State, block: int) -> Optional[int]:
    """The highest block below `block` that its footprint overlaps."""
    at = state.blocks[block]
    best: Optional[int] = None
    for index, other in enumerate(state.blocks):
        if index == block or other.top > at.bottom + _TOUCH:
            continue
        along_x, along_y, _, _ = _overlap(at, other)
        if min(along_x, along_y) <= 1e-3:
            continue
        if best is None or other.top > state.blocks[best].top:
            best = index
    return best


def _riders(state: State, block: int) -> Iterator[int]:
    """The blocks that stand on `block`, and those that stand on them."""
    base = state.blocks[block]
    for index, other in enumerate(state.blocks):
        if index == block or state.holds(index):
            continue
        if abs(other.bottom - base.top) < _TOUCH and _covers(
            base, other.x, other.y, 0.0
        ):
            yield index
            yield from _riders(state, index)


def _beside(state: State, block: Block) -> bool:
    """Whether the fingers reach down beside the block."""
    return (
        state.z < block.top - _TOUCH
        and state.z + FINGER_LENGTH > block.bottom + _TOUCH
    )


def _covers(block: Block, x: float, y: float, margin: float) -> bool:
    u, v = turned(x - block.x, y - block.y, -block.yaw)
    return max(abs(u), abs(v)) < BLOCK_HALF + margin


def _overlap(block: Block, base: Block) -> Tuple[float, float, float, float]:
    """How deep `block` is in `base` along base's axes, and where it is there.

    The block's bounding box along those axes stands for the block.
    """
    u, v = turned(block.x - base.x, block.y - base.y, -base.yaw)
    reach = BLOCK_HALF + half_extent(block.yaw - base.yaw)
    return reach - abs(u), reach - abs(v), u, v


def _clamp(value: float, limit: float) -> float:
    return max(-limit, min(limit, value))
