# SPDX-License-Identifier: Apache-2.0
"""How the hand and the blocks move."""

import math

import numpy as np
import pytest
from piserve.worlds.tabletop import ACTION_DIM, Tabletop, proprioception
from piserve.worlds.tabletop.dynamics import step
from piserve.worlds.tabletop.state import (
    BLOCK_HALF,
    BLOCK_SIZE,
    FINGER_MAX,
    TIP_MIN,
    Block,
    State,
)

_OPEN, _CLOSE = -1.0, 1.0
_GRASP_Z = BLOCK_HALF


def _state(blocks=(), *, x=0.0, y=0.0, z=0.15, yaw=0.0):
    """A hand over a table with up to three blocks; the others far away."""
    far = [Block(-0.2, -0.25 + 0.2 * i, BLOCK_HALF, 0.0) for i in range(3)]
    placed = [*blocks, *far[len(blocks) :]]
    return State(x, y, z, yaw, pad_x=0.15, pad_y=0.2, blocks=placed)


def _action(dx=0.0, dy=0.0, dz=0.0, *, turn=(0.0, 0.0, 0.0), gripper=0.0):
    return np.array([dx, dy, dz, *turn, gripper])


def _repeat(state, count, **action):
    for _ in range(count):
        step(state, _action(**action))


def _gripped(block=None):
    """A state in which the hand holds a block that lies on the table."""
    state = _state([block or Block(0.0, 0.0, BLOCK_HALF, 0.0)], z=_GRASP_Z)
    _repeat(state, 6, gripper=_CLOSE)
    return state


def test_an_action_of_one_moves_the_tip_a_step_and_turns_it():
    state = _state()
    step(state, np.array([1.0, -1.0, 0.5, 0.0, 0.0, 1.0, 0.0]))
    moved = [state.x, state.y, state.z - 0.15, state.yaw]
    np.testing.assert_allclose(moved, [0.025, -0.025, 0.0125, 0.2], atol=1e-12)


def test_actions_beyond_one_are_clipped():
    one, ten = _state(), _state()
    step(one, np.ones(ACTION_DIM))
    step(ten, 10 * np.ones(ACTION_DIM))
    assert one == ten


@pytest.mark.parametrize("shape", [(6,), (8,), (1, 7), ()])
def test_an_action_of_another_shape_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"got shape .* want \[7\]"):
        step(_state(), np.zeros(shape))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_action_that_is_not_finite_is_refused(value):
    with pytest.raises(ValueError, match="finite"):
        step(_state(), np.full(7, value))


def test_state_is_tip_axis_angle_and_both_fingers():
    state = _state(x=0.01, y=0.02, z=0.1, yaw=0.3)
    got = proprioception(state)
    want = [0.01, 0.02, 0.1, 0.0, 0.0, 0.3, FINGER_MAX, -FINGER_MAX]
    np.testing.assert_allclose(got, want, atol=1e-12)
    assert got.dtype == np.float64


def test_axis_angle_is_the_tilt_when_the_hand_is_not_turned():
    state = _state()
    step(state, _action(turn=(0.5, -1.0, 0.0)))
    np.testing.assert_allclose(
        proprioception(state)[3:6], [0.1, -0.2, 0.0], atol=1e-12
    )


def test_the_tip_stops_on_the_table():
    state = _state(z=0.03)
    _repeat(state, 5, dz=-1.0)
    assert state.z == TIP_MIN


def test_the_hand_stays_within_reach():
    state = _state()
    _repeat(state, 40, dx=1.0, dy=1.0, dz=1.0, turn=(1.0, 1.0, 1.0))
    assert (state.x, state.y, state.z) == (0.21, 0.25, 0.28)
    assert (state.tilt_x, state.tilt_y, state.yaw) == (0.35, 0.35, 1.5)


def test_fingers_around_a_block_grip_and_lift_it():
    state = _gripped()
    assert state.holds(0)
    assert state.finger == pytest.approx(BLOCK_HALF)
    _repeat(state, 4, dz=1.0, gripper=_CLOSE)
    assert state.blocks[0].bottom == pytest.approx(0.1)


def test_a_block_that_is_not_gripped_stays_when_the_hand_rises():
    state = _state([Block(0.0, 0.0, BLOCK_HALF, 0.0)], z=_GRASP_Z)
    _repeat(state, 4, dz=1.0)
    assert state.grip is None
    assert state.blocks[0].bottom == 0.0


def test_fingers_that_close_beside_a_block_hold_nothing():
    state = _state([Block(0.0, 0.1, BLOCK_HALF, 0.0)], z=_GRASP_Z)
    _repeat(state, 6, gripper=_CLOSE)
    assert state.grip is None
    assert state.finger == 0.0


def test_fingers_that_close_above_a_block_hold_nothing():
    state = _state([Block(0.0, 0.0, BLOCK_HALF, 0.0)], z=BLOCK_SIZE + 0.005)
    _repeat(state, 6, gripper=_CLOSE)
    assert state.grip is None


def test_closing_fingers_centre_a_block_and_turn_it_into_line():
    state = _gripped(Block(0.0, 0.012, BLOCK_HALF, 0.3))
    block = state.blocks[0]
    assert state.holds(0)
    assert block.y == pytest.approx(0.0, abs=1e-9)
    assert block.yaw == pytest.approx(0.0, abs=1e-6)


def test_a_block_on_its_diagonal_is_not_gripped():
    state = _gripped(Block(0.0, 0.0, BLOCK_HALF, math.pi / 4))
    assert state.grip is None
    assert state.finger == pytest.approx(BLOCK_HALF * math.sqrt(2.0))


def test_a_hand_that_leans_too_far_does_not_grip():
    state = _state([Block(0.0, 0.0, BLOCK_HALF, 0.0)], z=_GRASP_Z)
    state.tilt_x = 0.3
    _repeat(state, 6, gripper=_CLOSE)
    assert state.grip is None


def test_opening_lets_go_and_the_block_falls_to_the_table():
    state = _gripped()
    _repeat(state, 4, dz=1.0, gripper=_CLOSE)
    step(state, _action(gripper=_OPEN))
    assert state.grip is None
    assert 0.0 < state.blocks[0].bottom < 0.1  # on its way
    assert state.moved
    _repeat(state, 4, gripper=_OPEN)
    assert state.blocks[0].bottom == pytest.approx(0.0, abs=1e-12)
    assert not state.moved


def test_a_block_that_is_let_go_above_another_rests_on_it():
    state = _gripped()
    _repeat(state, 4, dz=1.0, gripper=_CLOSE)
    state.blocks[1] = Block(0.0, 0.0, BLOCK_HALF, 0.1)
    _repeat(state, 5, gripper=_OPEN)
    assert state.blocks[0].bottom == pytest.approx(BLOCK_SIZE)


def test_a_held_block_does_not_sink_into_another():
    state = _gripped()
    _repeat(state, 4, dz=1.0, gripper=_CLOSE)
    state.blocks[1] = Block(0.0, 0.0, BLOCK_HALF, 0.0)
    _repeat(state, 8, dz=-1.0, gripper=_CLOSE)
    assert state.blocks[0].bottom == pytest.approx(BLOCK_SIZE)
    assert state.blocks[1].bottom == 0.0


def test_a_held_block_does_not_pass_through_the_table():
    state = _gripped()
    _repeat(state, 2, dz=1.0, gripper=_CLOSE)
    _repeat(state, 6, dz=-1.0, gripper=_CLOSE)
    assert state.blocks[0].bottom == pytest.approx(0.0, abs=1e-12)


def test_a_block_dropped_on_an_edge_slides_down_to_the_table():
    under = Block(0.0, 0.0, BLOCK_HALF, 0.0)
    upper = Block(0.026, 0.0, 3 * BLOCK_HALF, 0.0)
    state = _state([under, upper])
    _repeat(state, 10)
    assert upper.bottom == pytest.approx(0.0, abs=1e-12)
    assert upper.x - under.x >= BLOCK_SIZE - 2e-3


def test_lifting_a_block_lifts_the_one_on_top():
    state = _gripped()
    state.blocks[1] = Block(0.0, 0.0, 3 * BLOCK_HALF, 0.0)
    _repeat(state, 2, dz=1.0, gripper=_CLOSE)
    assert state.blocks[1].bottom == pytest.approx(0.05 + BLOCK_SIZE)


def test_a_finger_pushes_a_block_along():
    state = _state([Block(0.0, 0.1, BLOCK_HALF, 0.0)], z=_GRASP_Z)
    _repeat(state, 4, dy=1.0)
    assert state.blocks[0].y > 0.15
    assert state.blocks[0].bottom == 0.0


def test_a_pushed_block_pushes_the_next():
    blocks = [Block(0.0, y, BLOCK_HALF, 0.0) for y in (0.08, 0.125)]
    state = _state(blocks, z=_GRASP_Z)
    _repeat(state, 4, dy=1.0)
    first, second = state.blocks[:2]
    assert second.y > 0.14
    assert second.y - first.y >= BLOCK_SIZE - 1e-9


def test_fingers_stop_on_top_of_a_block():
    state = _state([Block(0.0, 0.045, BLOCK_HALF, 0.0)], z=0.08)
    _repeat(state, 5, dz=-1.0)
    assert state.z == pytest.approx(BLOCK_SIZE)


def test_no_block_ends_in_another_or_in_the_table_whatever_is_done():
    world = Tabletop()
    for seed in range(6):
        world.start(seed)
        rng = np.random.default_rng(seed)
        drift = np.array([0, 0, -0.4, 0, 0, 0, 0])
        while not world.done:
            world.act(rng.uniform(-1, 1, ACTION_DIM) + drift)
            for block in world.state.blocks:
                assert block.bottom >= -1e-9
                assert np.isfinite([block.x, block.y, block.yaw]).all()
