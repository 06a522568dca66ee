# SPDX-License-Identifier: Apache-2.0
"""Episodes: what is drawn, what is seen, what counts as success."""

import numpy as np
import pytest
from fake_server import libero_info
from piserve.observations import observation_request
from piserve.worlds.tabletop import (
    COLOURS,
    NO_PERTURBATIONS,
    PHRASINGS,
    Expert,
    Perturbations,
    Tabletop,
    expert_action,
    expert_chunk,
    run_episode,
)
from piserve.worlds.tabletop.state import BLOCK_HALF, FINGER_MAX


def _zeros(obs):
    return np.zeros((10, 7))


def _solved(target=0):
    """A world in which the target lies on the pad and nothing else does."""
    world = Tabletop(perturbations=NO_PERTURBATIONS)
    world.start(0, target=target)
    _put_on_pad(world, target)
    return world


def _put_on_pad(world, block, dx=0.0, dy=0.0):
    at = world.state.blocks[block]
    at.x, at.y = world.state.pad_x + dx, world.state.pad_y + dy


def test_the_expert_succeeds_on_95_percent_of_200_disturbed_seeds():
    world = Tabletop()
    wins = 0
    for seed in range(200):
        world.start(seed)
        while not world.done:
            world.act(expert_action(world.state, world.target))
        wins += world.success
    assert wins >= 190


def test_the_expert_recovers_from_much_stronger_disturbances():
    world = Tabletop(
        perturbations=Perturbations(action_noise=0.3, nudges=(2, 4))
    )
    wins = 0
    for seed in range(1000, 1040):
        world.start(seed)
        while not world.done:
            world.act(expert_action(world.state, world.target))
        wins += world.success
    assert wins >= 36


def test_zero_actions_never_succeed():
    world = Tabletop(image_size=16)
    still = np.zeros((world.max_steps, 7))
    results = [
        run_episode(lambda obs: still, seed, world=world, replan_steps=150)
        for seed in range(10)
    ]
    assert not any(result.success for result in results)
    assert all(result.steps == world.max_steps for result in results)


def test_random_actions_do_not_succeed():
    world = Tabletop()
    for seed in range(20):
        world.start(seed)
        rng = np.random.default_rng(seed)
        while not world.done:
            world.act(rng.uniform(-1.0, 1.0, 7))
        assert not world.success


def test_a_seed_reproduces_every_bit():
    world = Tabletop(image_size=64)
    first = run_episode(Expert(world), 11, world=world, replan_steps=1)
    last = world.observe()
    run_episode(Expert(world), 12, world=world, replan_steps=1)
    fresh = Tabletop(image_size=64)
    again = run_episode(Expert(fresh), 11, world=fresh, replan_steps=1)
    assert first.prompt == again.prompt
    assert first.actions.tobytes() == again.actions.tobytes()
    assert first.states.tobytes() == again.states.tobytes()
    for key, value in fresh.observe().items():
        np.testing.assert_array_equal(value, last[key])


def test_a_seed_has_one_layout_and_prompt_whatever_the_perturbations():
    calm = Tabletop(perturbations=NO_PERTURBATIONS)
    rough = Tabletop(perturbations=Perturbations(action_noise=0.5))
    for seed in range(5):
        calm.start(seed)
        rough.start(seed)
        assert calm.state == rough.state
        assert calm.prompt == rough.prompt


def test_seeds_differ_in_layout_target_and_phrasing():
    world = Tabletop()
    layouts, targets, prompts = set(), set(), set()
    for seed in range(60):
        world.start(seed)
        layouts.add((world.state.pad_x, world.state.blocks[0].x))
        targets.add(world.target)
        prompts.add(world.prompt)
    assert len(layouts) == 60
    assert targets == {0, 1, 2}
    assert len(prompts) > len(PHRASINGS)


def test_the_prompt_names_the_target_and_no_other_colour():
    world = Tabletop()
    for seed in range(30):
        world.start(seed)
        named = [colour for colour in COLOURS if colour in world.prompt.split()]
        assert named == [COLOURS[world.target]]


def test_nothing_starts_on_the_pad_or_in_the_way_of_the_fingers():
    world = Tabletop()
    for seed in range(100):
        world.start(seed)
        state = world.state
        assert not any(state.over_pad(block) for block in range(3))
        places = np.array([[b.x, b.y] for b in state.blocks])
        gaps = np.linalg.norm(places[:, None] - places[None], axis=2)
        assert gaps[np.triu_indices(3, 1)].min() >= 0.1


def test_nudges_move_blocks():
    world = Tabletop(
        perturbations=Perturbations(action_noise=0.0, nudges=(3, 3))
    )
    moved = 0
    for seed in range(10):
        world.start(seed)
        before = [(b.x, b.y) for b in world.state.blocks]
        for _ in range(45):
            world.act(np.zeros(7))
        moved += before != [(b.x, b.y) for b in world.state.blocks]
    assert moved >= 8


def test_action_noise_moves_the_hand_but_not_the_gripper():
    world = Tabletop(perturbations=Perturbations(nudges=(0, 0)))
    world.start(0)
    before = world.state.copy()
    for _ in range(5):
        world.act(np.zeros(7))
    assert world.state.x != before.x
    assert world.state.yaw != before.yaw
    assert world.state.finger == before.finger


# --------------------------------------------------------------------- success


def test_the_target_alone_on_the_pad_is_success():
    assert _solved().success


def test_a_wrong_block_on_the_pad_is_not_success():
    world = _solved(target=0)
    world.start(0, target=1)
    _put_on_pad(world, 0)
    assert not world.success


def test_a_second_block_on_the_pad_is_not_success():
    world = _solved(target=0)
    _put_on_pad(world, 0, dx=-0.03)
    assert world.success
    _put_on_pad(world, 2, dx=0.03)
    assert not world.success


def test_a_block_that_is_still_held_is_not_success():
    world = _solved()
    world.state.finger = BLOCK_HALF
    assert not world.success
    world.state.finger = FINGER_MAX
    assert world.success


def test_a_block_over_the_rim_is_not_success():
    world = _solved()
    _put_on_pad(world, 0, dx=0.05)
    assert not world.success


def test_a_block_in_the_air_over_the_pad_is_not_success():
    world = _solved()
    world.state.blocks[0].z += 0.02
    assert not world.success


def test_acting_after_the_end_is_an_error():
    with pytest.raises(RuntimeError, match=r"seed 0 .*reset"):
        _solved().act(np.zeros(7))


def test_an_episode_ends_after_max_steps():
    world = Tabletop(max_steps=3)
    world.start(1)
    for _ in range(3):
        assert not world.done
        world.act(np.zeros(7))
    assert world.done
    assert not world.success


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"image_size": 0}, "image_size"),
        ({"max_steps": 0}, "max_steps"),
    ],
)
def test_a_world_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=f"{message}: got 0, want at least"):
        Tabletop(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"action_noise": -1.0}, {"nudges": (2, 1)}, {"nudge_before": 0}],
)
def test_perturbations_that_make_no_sense_are_refused(arguments):
    with pytest.raises(ValueError, match=r"got .* want"):
        Perturbations(**arguments)


@pytest.mark.parametrize("seed, target", [(-1, 0), (0, 3), (0, -1)])
def test_a_seed_or_target_that_is_not_there_is_refused(seed, target):
    with pytest.raises(ValueError, match=r"got -?\d, want"):
        Tabletop().start(seed, target=target)


# ------------------------------------------------------------------ run_episode


def test_the_client_takes_an_observation_as_it_is():
    obs = Tabletop().reset(3)
    request = observation_request(obs, libero_info())
    assert request.prompt == obs["prompt"]
    assert list(request.state) == obs["observation/state"].tolist()
    assert len(request.images) == 2


def test_a_chunk_is_carried_out_for_replan_steps():
    world = Tabletop(image_size=16, max_steps=12)
    asked = []

    def policy(obs):
        asked.append(obs["observation/state"])
        return {"actions": np.zeros((10, 7))}

    result = run_episode(policy, 0, world=world, replan_steps=5)
    assert len(asked) == len(result.infer_s) == 3
    np.testing.assert_array_equal(asked[1], result.states[5])


def test_a_shorter_chunk_is_carried_out_whole_and_extra_columns_dropped():
    world = Tabletop(image_size=16, max_steps=4)
    calls = []

    def policy(obs):
        calls.append(obs)
        return np.ones((2, 32)) * 0.1

    result = run_episode(policy, 0, world=world, replan_steps=5)
    assert len(calls) == 2
    assert result.actions.shape == (4, 7)
    assert result.states.shape == (5, 8)


@pytest.mark.parametrize(
    "answer, message",
    [
        ({"action": 1}, r"\['action'\], want actions"),
        (np.zeros((5, 6)), r"got shape \[5, 6\], want \[horizon, 7\]"),
        (np.zeros((0, 7)), r"got shape \[0, 7\]"),
        (np.full((5, 7), np.nan), "finite"),
    ],
)
def test_an_answer_without_good_actions_is_refused(answer, message):
    with pytest.raises(ValueError, match=message):
        run_episode(lambda obs: answer, 0, world=Tabletop(image_size=16))


def test_on_step_sees_the_start_and_every_step():
    world = Tabletop(image_size=16, max_steps=4)
    seen = []
    run_episode(_zeros, 0, world=world, on_step=lambda w: seen.append(w.steps))
    assert seen == [0, 1, 2, 3, 4]


def test_an_expert_chunk_is_what_the_expert_does_undisturbed():
    world = Tabletop(perturbations=NO_PERTURBATIONS)
    world.start(2)
    before = world.state.copy()
    chunk = expert_chunk(world.state, world.target, 10)
    assert world.state == before
    for row in chunk:
        np.testing.assert_array_equal(
            row, expert_action(world.state, world.target)
        )
        world.act(row)


def test_the_expert_replanning_every_five_steps_mostly_succeeds():
    world = Tabletop(image_size=16)
    expert = Expert(world, horizon=10)
    wins = [
        run_episode(expert, seed, world=world).success for seed in range(20)
    ]
    assert sum(wins) >= 18
