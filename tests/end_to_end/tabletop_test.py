# SPDX-License-Identifier: Apache-2.0
"""The policies that come with the repository succeed, and would not if the
server mixed up cameras, statistics, chunks or rows. docs/benchmarks.md has the
same over 100 episodes."""

import contextlib
import json

import numpy as np
import pytest
from piserve import PolicyClient
from piserve.worlds.tabletop import FAULTS, Tabletop, evaluate
from server_process import ROOT
from serving import config_text, serving, serving_config, write_config

SEEDS = range(12)
ASSETS = ROOT / "deploy" / "policies" / "pi0_tabletop" / "assets"
LEAST_DROP = 0.2


@pytest.fixture(scope="module")
def server():
    with serving_config("tabletop") as running:
        yield running


def measured(server, policy, seeds, *, robots=4, **options):
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(
                PolicyClient(
                    server.addresses.public, policy=policy, timeout=30.0
                )
            )
            for _ in range(robots)
        ]
        return evaluate(clients, seeds, **options)


@pytest.fixture(scope="module")
def alone(server):
    return measured(server, "pi0_tabletop", SEEDS, robots=1)


def test_pi0_succeeds_in_nine_of_ten_episodes(alone):
    assert alone.rate >= 0.9, alone.results


def test_pi05_succeeds_in_85_of_100_episodes(server):
    found = measured(server, "pi05_tabletop", SEEDS)
    assert found.rate >= 0.85, found.results


def test_robots_at_once_act_to_the_bit_as_each_does_alone(server, alone):
    together = measured(server, "pi0_tabletop", SEEDS, robots=len(SEEDS))
    for one, other in zip(alone.results, together.results, strict=True):
        np.testing.assert_array_equal(one.actions, other.actions)


def shortened():
    """A clone that works is done by then; one that does not need not go on."""
    return Tabletop(max_steps=75)


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_fault_lowers_success(server, alone, fault):
    seeds = SEEDS[:6]
    found = measured(
        server, "pi0_tabletop", seeds, fault=fault, new_world=shortened
    )
    sound = sum(result.success for result in alone.results[: len(seeds)])
    assert found.rate <= sound / len(seeds) - LEAST_DROP, found.results


def test_wrong_norm_stat_lowers_success(alone, tmp_path):
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps(wrong_stats()))
    text = config_text(
        "tabletop",
        **{
            'policy_config: "pi0_libero"': 'policy_config: "pi0_libero"\n'
            f'  norm_stats: "{path}"'
        },
    )
    seeds = SEEDS[:6]
    with serving(write_config(tmp_path, text)) as server:
        found = measured(server, "pi0_tabletop", seeds, new_world=shortened)
    sound = sum(result.success for result in alone.results[: len(seeds)])
    assert found.rate <= sound / len(seeds) - LEAST_DROP, found.results


def wrong_stats():
    """One number wrong: the mean height of the hand, by one deviation."""
    stats = json.loads((ASSETS / "tabletop" / "norm_stats.json").read_text())
    state = stats["norm_stats"]["state"]
    state["mean"][2] += state["std"][2]
    return stats
