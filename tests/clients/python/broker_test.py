# SPDX-License-Identifier: Apache-2.0
"""ActionChunkBroker hands out one step at a time."""

import numpy as np
import pytest
from piserve import ActionChunkBroker


class CountingPolicy:
    def __init__(self, horizon=5):
        self.horizon = horizon
        self.seen = []
        self.resets = 0

    def infer(self, obs):
        self.seen.append(obs["n"])
        steps = np.arange(self.horizon)
        return {
            "actions": 10.0 * len(self.seen) + np.stack([steps, -steps], 1),
            "nested": {"array": steps, "text": "t"},
            "policy_timing": {"infer_ms": 1.5},
        }

    def reset(self):
        self.resets += 1


def test_asks_the_policy_once_per_horizon():
    policy = CountingPolicy()
    broker = ActionChunkBroker(policy, action_horizon=3)
    first = [broker.infer({"n": n})["actions"][0] for n in range(7)]
    assert first == [10, 11, 12, 20, 21, 22, 30]
    assert policy.seen == [0, 3, 6]


def test_slices_arrays_and_leaves_the_rest():
    broker = ActionChunkBroker(CountingPolicy(), action_horizon=5)
    broker.infer({"n": 0})
    row = broker.infer({"n": 1})
    np.testing.assert_array_equal(row["actions"], [11.0, 9.0])
    assert row["nested"]["array"] == 1
    assert row["nested"]["text"] == "t"
    assert row["policy_timing"] == {"infer_ms": 1.5}


def test_reset_drops_the_chunk_and_resets_the_policy():
    policy = CountingPolicy()
    broker = ActionChunkBroker(policy, action_horizon=5)
    broker.infer({"n": 0})
    broker.reset()
    assert policy.resets == 1
    assert broker.infer({"n": 9})["actions"][0] == 20
    assert policy.seen == [0, 9]


def test_a_failed_call_leaves_no_chunk_behind():
    policy = CountingPolicy()
    broker = ActionChunkBroker(policy, action_horizon=2)
    with pytest.raises(KeyError):
        broker.infer({})
    assert broker.infer({"n": 4})["actions"][0] == 10


def test_a_chunk_shorter_than_the_horizon_is_refused():
    broker = ActionChunkBroker(CountingPolicy(horizon=2), action_horizon=3)
    with pytest.raises(ValueError, match="has 2 steps"):
        broker.infer({"n": 0})


def test_horizon_must_be_positive():
    with pytest.raises(ValueError, match="action_horizon"):
        ActionChunkBroker(CountingPolicy(), action_horizon=0)
