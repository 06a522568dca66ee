# SPDX-License-Identifier: Apache-2.0
"""What the float32 reference answered to the tabletop's robots is what a server
answers today: here the reference itself, on a GPU the engine (deploy/bundle,
`run.sh tabletop`, with the same tolerance)."""

import json

import pytest
from server_process import ROOT
from serving import (
    PATIENT,
    config_text,
    run_client,
    serving,
    write_config,
)

RECORDINGS = ROOT / "tests" / "golden" / "tabletop"
STATS = "deploy/policies/{}/assets/tabletop/norm_stats.json"
POLICIES = ("pi0_tabletop", "pi05_tabletop")
TOLERANCE = {"FLOAT32": 1e-3, "BFLOAT16": 0.1}
DIFFERENT = 5


@pytest.fixture(scope="module", params=sorted(TOLERANCE))
def precision(request):
    return request.param


@pytest.fixture(scope="module")
def server(precision, tmp_path_factory):
    text = config_text("tabletop", FLOAT32=precision, **PATIENT)
    flag = write_config(tmp_path_factory.mktemp(precision), text)
    with serving(flag) as running:
        yield running


def replay(server, policy, tolerance):
    return run_client(
        server,
        "policy_cli",
        *("replay", str(RECORDINGS / policy)),
        f"--tolerance={tolerance}",
        timeout=120,
    )


@pytest.mark.parametrize("policy", POLICIES)
def test_answers_are_those_recorded(server, precision, policy):
    result = replay(server, policy, TOLERANCE[precision])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 of 15 compared answers differ" in result.stdout


@pytest.mark.parametrize("policy", POLICIES)
def test_the_widest_tolerance_notices_a_wrong_norm_stat(policy, tmp_path):
    path = tmp_path / "norm_stats.json"
    path.write_text(json.dumps(wrong_stats(policy)))
    name = f'name: "{policy}"'
    text = config_text("tabletop", **{name: f'{name} norm_stats: "{path}"'})
    with serving(write_config(tmp_path, text)) as server:
        result = replay(server, policy, max(TOLERANCE.values()))
    assert result.returncode == DIFFERENT, result.stdout + result.stderr


def wrong_stats(policy):
    """One number wrong: the mean height of the hand, by one deviation."""
    stats = json.loads((ROOT / STATS.format(policy)).read_text())
    state = stats["norm_stats"]["state"]
    state["mean"][2] += state["std"][2]
    state["q01"][2] += state["std"][2]
    state["q99"][2] += state["std"][2]
    return stats
