# SPDX-License-Identifier: Apache-2.0
"""openpi's protocol, step by step, against examples/libero/main.py."""

import math

import numpy as np
import pytest
from libero_fakes import WINS_AT, FakeEnvironment
from piserve.libero.protocol import (
    MAX_STEPS,
    WAIT_ACTION,
    Protocol,
    axis_angle,
    request,
    run_episode,
)


class Policy:
    """Answers actions that count up from 1; keeps what it was asked."""

    def __init__(self, horizon=10, width=7):
        self.asked = []
        self._shape = (horizon, width)

    def __call__(self, obs):
        self.asked.append(obs)
        first = 100 * len(self.asked)
        rows = first + np.arange(self._shape[0])[:, None]
        return {"actions": rows * np.ones(self._shape)}


def run(trial=0, max_steps=20, policy=None, wins_at=WINS_AT, **options):
    environment = FakeEnvironment(wins_at)
    policy = policy or Policy()
    result = run_episode(
        environment,
        policy,
        trial,
        "do it",
        Protocol(max_steps=max_steps),
        **options,
    )
    return environment, policy, result


def steps_of(environment):
    return [call for call in environment.calls if call[0] == "step"]


def test_every_suite_has_openpis_number_of_steps():
    assert MAX_STEPS == {
        "libero_spatial": 220,
        "libero_object": 280,
        "libero_goal": 300,
        "libero_10": 520,
        "libero_90": 400,
    }


def test_defaults_are_openpis():
    protocol = Protocol(max_steps=1)
    assert (protocol.wait_steps, protocol.replan_steps) == (10, 5)


def test_ten_steps_wait_before_the_policy_is_asked():
    environment, _, _ = run()
    assert environment.calls[0] == ("reset", 0)
    waits = environment.calls[1:11]
    assert {name for name, *_ in waits} == {"step"}
    assert all(call[1] == [0, 0, 0, 0, 0, 0, -1] for call in waits)
    assert WAIT_ACTION.tolist() == [0, 0, 0, 0, 0, 0, -1]
    assert environment.calls[11] == ("observe", 10)


def test_five_actions_of_each_chunk_are_carried_out():
    environment, _, _ = run(trial=1, max_steps=12)
    sent = [call[1][0] for call in steps_of(environment)[10:]]
    want = [100, 101, 102, 103, 104, 200, 201, 202, 203, 204, 300, 301]
    assert sent == want


def test_a_failure_ends_after_max_steps_actions():
    environment, policy, result = run(trial=1, max_steps=20)
    assert not result.success
    assert result.steps == 20
    assert len(steps_of(environment)) == 30
    assert len(policy.asked) == len(result.infer_s) == 4


def test_success_ends_the_episode_at_once():
    environment, policy, result = run(trial=0)
    assert result.success
    assert result.steps == WINS_AT
    assert len(steps_of(environment)) == 10 + WINS_AT
    assert len(policy.asked) == 2


def test_a_task_that_is_done_while_waiting_is_no_success():
    _, _, result = run(trial=0, wins_at=-3)
    assert not result.success


def test_only_what_is_sent_is_rendered():
    environment, policy, _ = run(trial=1, max_steps=12)
    rendered = [call for call in steps_of(environment) if call[2]]
    assert len(rendered) == len(policy.asked) == 3


def test_nothing_is_rendered_for_a_step_after_the_last():
    environment, _, _ = run(trial=1, max_steps=10)
    assert not steps_of(environment)[-1][2]


def test_images_are_turned_by_180_degrees_and_left_in_size():
    environment = FakeEnvironment()
    environment.observed = True
    seen = environment.observe()
    obs = request(seen, "p")
    turned = np.rot90(seen.base, 2)
    np.testing.assert_array_equal(obs["observation/image"], turned)
    np.testing.assert_array_equal(obs["observation/wrist_image"], turned + 100)
    assert obs["observation/image"].dtype == np.uint8
    assert obs["prompt"] == "p"


def test_the_state_is_position_axis_angle_and_fingers():
    _, policy, _ = run()
    state = policy.asked[0]["observation/state"]
    assert state.dtype == np.float64
    want = [10, 0.1, 0.2, 0, 0, 0, 0.04, -0.04]
    np.testing.assert_array_equal(state, want)


def test_a_policy_is_not_told_what_the_simulator_knows():
    _, policy, _ = run()
    assert policy.asked[0]["observation/state"].shape == (8,)
    _, control, _ = run(privileged=True)
    told = control.asked[0]["observation/state"]
    np.testing.assert_array_equal(told[8:], np.arange(12))


def test_axis_angle_is_openpis():
    s = math.sqrt(0.5)
    quarter = axis_angle(np.array([0.0, 0.0, s, s]))
    np.testing.assert_allclose(quarter, [0, 0, math.pi / 2], atol=1e-12)
    half = axis_angle(np.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(half, [math.pi, 0, 0])
    assert axis_angle(np.array([0.0, 0.0, 0.0, 1.0])).tolist() == [0, 0, 0]
    over = axis_angle(np.array([0.1, 0.0, 0.0, 1.0 + 1e-9]))
    assert over.tolist() == [0, 0, 0]


def test_axis_angle_leaves_its_argument_alone():
    quaternion = np.array([0.1, 0.0, 0.0, 1.5])
    axis_angle(quaternion)
    assert quaternion[3] == 1.5


def test_frames_show_both_images_of_each_call():
    _, policy, result = run(filmed=True)
    assert len(result.frames) == len(policy.asked)
    assert result.frames[0].shape == (2, 4, 3)
    assert not run()[2].frames


@pytest.mark.parametrize("horizon, width", [(4, 7), (10, 6), (10, 8)])
def test_a_chunk_that_does_not_fit_is_refused(horizon, width):
    with pytest.raises(ValueError, match="want"):
        run(policy=Policy(horizon, width))


def test_a_protocol_without_steps_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Protocol(max_steps=0)
