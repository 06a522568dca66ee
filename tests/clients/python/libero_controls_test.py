# SPDX-License-Identifier: Apache-2.0
"""The scripted expert and its service."""

import math

import numpy as np
import pytest
from piserve import InvalidObservation, PolicyClient, PolicyNotFound
from piserve.libero.controls import HORIZON, serve
from piserve.libero.expert import Scene, expert_chunk

SIZE = np.array([0.04, 0.05, 0.08])


class Physics:
    """A hand that carries a box: what the expert believes of the world."""

    def __init__(self, size=SIZE, at=(0.1, -0.2)):
        self.low = np.array([*(np.array(at) - size[:2] / 2), 0.0])
        self.size = size
        self.hand = np.array([-0.15, 0.0, 0.25])
        self.yaw = 0.0
        self.finger = 0.04

    def state(self):
        half = self.yaw / 2  # a turn by yaw, after one by pi about x
        turn = math.pi * np.array([math.cos(half), math.sin(half), 0.0])
        goal = [-0.06, 0.2, 0.0], [0.06, 0.32, 0.14]
        return np.concatenate(
            [
                self.hand,
                turn,
                [self.finger, -self.finger],
                self.low,
                self.low + self.size,
                *goal,
            ]
        )

    def step(self, action):
        before = Scene.of(self.state())
        move = action[:3] * 0.05 * 0.26
        if before.held:
            self.low = self.low + move
        elif self.low[2] > 0:
            self.low[2] = max(0.0, self.low[2] - 0.1)
        self.hand = self.hand + move
        self.yaw += action[5] * 0.5 * 0.26
        width = before.half_width if before.near else 0.0
        speed = -0.004 if action[6] > 0 else 0.004
        self.finger = min(0.04, max(width, self.finger + speed))

    @property
    def done(self):
        middle = self.low[:2] + self.size[:2] / 2
        inside = (np.abs(middle - [0.0, 0.26]) < 0.06).all()
        return bool(inside and self.low[2] == 0.0 and self.finger > 0.035)


def carry(physics):
    for _ in range(56):
        for action in expert_chunk(physics.state(), HORIZON)[:5]:
            physics.step(action)
            if physics.done:
                return True
    return False


@pytest.fixture
def client():
    server, port = serve("expert", "127.0.0.1:0")
    with PolicyClient(f"127.0.0.1:{port}") as client:
        yield client
    server.stop(None).wait()


def observation(state):
    image = np.zeros((8, 8, 3), np.uint8)
    return {
        "observation/image": image,
        "observation/wrist_image": image,
        "observation/state": state,
        "prompt": "p",
    }


@pytest.mark.parametrize("at", [(0.1, -0.2), (-0.1, 0.05), (0.15, 0.1)])
def test_the_expert_carries_a_box_into_the_basket(at):
    assert carry(Physics(at=at))


def test_the_expert_turns_its_hand_around_a_box_that_is_wide():
    physics = Physics(size=np.array([0.04, 0.09, 0.04]))
    assert carry(physics)
    assert abs(physics.yaw - math.pi / 2) < 0.15


def test_without_the_expert_the_box_stays():
    physics = Physics()
    for _ in range(280):
        physics.step(np.zeros(7))
    assert not physics.done


def test_a_hand_that_lost_the_box_opens_and_tries_again():
    physics = Physics()
    physics.hand, physics.finger = np.array([0.1, 0.2, 0.2]), 0.0
    assert expert_chunk(physics.state(), 1)[0, 6] == -1.0
    assert carry(physics)


def test_a_state_of_another_length_is_refused():
    with pytest.raises(ValueError, match="want \\[20\\]"):
        expert_chunk(np.zeros(8), 1)


def test_the_service_answers_what_the_script_says(client):
    client.wait_until_ready(5.0)
    state = Physics().state()
    actions = client.infer(observation(state))["actions"]
    want = expert_chunk(state, HORIZON).astype(np.float32)
    np.testing.assert_array_equal(actions, want)


def test_the_service_says_that_it_asks_for_more_than_a_policy(client):
    info = client.policy_info()
    sizes = {block.name: block.size for block in info.state}
    assert sizes == {"state": 8, "simulator": 12}
    with pytest.raises(InvalidObservation, match="want \\[20\\]"):
        client.infer(observation(np.zeros(8)))


def test_the_service_refuses_what_a_server_refuses(client):
    with pytest.raises(InvalidObservation, match="prompt"):
        client.infer({**observation(Physics().state()), "prompt": ""})
    client._policy = "another"
    with pytest.raises(PolicyNotFound):
        client.policy_info()


def test_zero_does_nothing():
    server, port = serve("zero", "127.0.0.1:0")
    with PolicyClient(f"127.0.0.1:{port}") as client:
        actions = client.infer(observation(np.zeros(8)))["actions"]
    server.stop(None).wait()
    assert actions.shape == (HORIZON, 7)
    assert not actions.any()
