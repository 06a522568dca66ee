# SPDX-License-Identifier: Apache-2.0
"""The Grafana dashboard as a file: its source, its form, its grid.

live_test.py runs its expressions.
"""

import json
import subprocess
import sys

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from server_process import ROOT

GRAFANA = ROOT / "deploy" / "grafana"


@pytest.fixture
def dashboard():
    return json.loads((GRAFANA / "piserve.json").read_text())


def unknown(ours, theirs, path=""):
    """Where `ours` has something that `theirs` has not."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            yield from unknown(value, theirs.get(key), f"{path}/{key}")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for i, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from unknown(one, other, f"{path}/{i}")
    elif ours != theirs:
        yield path


def through_grafanas_types(dashboard):
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_is_what_its_source_writes():
    subprocess.run(
        [sys.executable, str(GRAFANA / "dashboard.py"), "--check"], check=True
    )


def test_grafana_knows_every_field(dashboard):
    assert list(unknown(dashboard, through_grafanas_types(dashboard))) == []


def test_misspelt_field_would_be_noticed(dashboard):
    dashboard["panels"][9]["targets"][0]["legend"] = "x"
    assert list(unknown(dashboard, through_grafanas_types(dashboard))) == [
        "/panels/9/targets/0/legend"
    ]


def test_panels_do_not_overlap_and_fit_the_grid(dashboard):
    taken = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, panel["title"]
                taken.add((x, y))


def test_every_panel_explains_itself(dashboard):
    for panel in dashboard["panels"]:
        assert panel["type"] == "row" or panel["description"].endswith(".")
