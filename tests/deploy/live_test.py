# SPDX-License-Identifier: Apache-2.0
"""Server under load, real Prometheus, shipped rules and dashboard.

One story is lived through once: good order, a stall of the device, recovery,
and the end of the server. Windows are a sixtieth of the shipped ones.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import time

import pytest
import yaml
from prometheus_process import SHIPPED, PrometheusProcess
from server_process import ROOT, ServerProcess
from serving import (
    RawClient,
    binary,
)

GRAFANA = ROOT / "deploy" / "grafana"
INTERVAL = "200ms"
FACTOR = 60
STALL_ALERTS = {"PiserveStalled", "PiserveErrorsBurnFast"}
ALERTS = STALL_ALERTS | {"PiserveDown"}
STALL_LIMIT = 18  # s; after 20 the server gives a hung device up


def dashboard():
    return json.loads((GRAFANA / "piserve.json").read_text())


def targets_by_row():
    """(row, panel, target) of the whole dashboard."""
    row = ""
    for panel in dashboard()["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
        for target in panel.get("targets", ()):
            yield row, panel, target


def is_gpu(row):
    return row.startswith("GPU")


def cases(gpu):
    return [
        pytest.param(panel, target, id=f"{panel['title']}-{target['refId']}")
        for row, panel, target in targets_by_row()
        if is_gpu(row) == gpu
    ]


def as_grafana_asks(expression):
    for variable, value in (
        ("$job", "piserve"),
        ("$instance", ".*"),
        ("$__rate_interval", "3s"),
    ):
        expression = expression.replace(variable, value)
    assert "$" not in expression
    return expression


@dataclasses.dataclass
class Story:
    prometheus: PrometheusProcess
    start: float
    end: float = 0
    in_order: set[str] = dataclasses.field(default_factory=set)
    stalled: set[str] = dataclasses.field(default_factory=set)
    recovered: set[str] = dataclasses.field(default_factory=set)
    dead: set[str] = dataclasses.field(default_factory=set)

    def series(self, expression):
        return self.prometheus.series(expression, self.start, self.end)

    def series_until_now(self, expression):
        return self.prometheus.series(expression, self.start, time.time())


def load(server, *flags):
    """policy_load in the background."""
    return subprocess.Popen(
        [
            str(binary("policy_load")),
            f"--address={server.addresses.public}",
            "--duration=120s",
            *flags,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.STDOUT,
    )


def live(story, server, stall_file):
    prometheus = story.prometheus
    prometheus.wait_for(
        lambda: len(story.series_until_now("up == 1")) == 1,
        30,
        "the first scrapes",
    )
    with RawClient(server.addresses.public) as client:
        client.infer(b"no observation")  # refused; nobody's budget
    time.sleep(3)  # good order is what is watched; a busy machine needs longer
    prometheus.wait_for(
        lambda: not prometheus.raised() & ALERTS, 60, "good order"
    )
    story.in_order = prometheus.firing()
    stall_file.touch()
    prometheus.wait_for(
        lambda: (
            prometheus.firing() >= STALL_ALERTS
            and story.series_until_now("piserve_requests_dropped_total")
        ),
        STALL_LIMIT,
        "a stall's alerts and drops",
    )
    story.stalled = prometheus.firing()
    stall_file.unlink()
    prometheus.wait_for(
        lambda: not prometheus.raised() & STALL_ALERTS, 40, "calm"
    )
    story.recovered = prometheus.firing()
    story.end = time.time()
    server.terminate()
    server.wait()
    prometheus.wait_for(
        lambda: "PiserveDown" in prometheus.firing(), 20, "PiserveDown"
    )
    story.dead = prometheus.firing()


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("monitoring")
    stall_file = folder / "stall"
    runs = []
    with ServerProcess(
        binary("piserve_test_server"), [f"--stall_file={stall_file}"]
    ) as server:
        try:
            server.wait_until_ready()
            runs.append(load(server, "--robots=6", "--rate=5"))
            hasty = ("--robots=1", "--rate=5", "--timeout=1s")
            runs.append(load(server, *hasty))  # these expire in a stall
            with PrometheusProcess(
                folder, [server.addresses.http], INTERVAL, FACTOR
            ) as prometheus:
                told = Story(prometheus, time.time())
                live(told, server, stall_file)
                yield told
        finally:
            stall_file.unlink(missing_ok=True)
            for run in runs:
                run.kill()
                run.wait()


@pytest.fixture(scope="module")
def gpu_story(tmp_path_factory):
    """Good order on a GPU, beside one that has failed."""
    with ServerProcess(binary("piserve_test_server"), ["--gpu"]) as server:
        server.wait_until_ready()
        run = load(server, "--policy=libero", "--robots=6", "--rate=5")
        try:
            with PrometheusProcess(
                tmp_path_factory.mktemp("gpu"),
                [server.addresses.http],
                INTERVAL,
                FACTOR,
            ) as prometheus:
                told = Story(prometheus, time.time())
                prometheus.wait_for(
                    lambda: told.series_until_now(
                        "rate(piserve_gpu_energy_joules_total[3s]) > 0"
                    ),
                    30,
                    "energy, which is asked for every 5 s",
                )
                told.end = time.time()
                yield told
        finally:
            run.kill()
            run.wait()


def data_of(story, panel, target):
    """Series of an expression, with every label that its legend names."""
    found = story.series(as_grafana_asks(target["expr"]))
    assert found, f"{panel['title']}: {target['expr']}"
    for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
        assert any(label in one["labels"] for one in found), label
    return found


def test_good_order_raises_no_alert(story):
    assert not story.in_order & ALERTS


def test_stalled_server_raises_its_alerts(story):
    assert story.stalled >= STALL_ALERTS
    assert "PiserveDown" not in story.stalled, "it still answers /metrics"


def test_alerts_end_when_the_server_recovers(story):
    assert not story.recovered & STALL_ALERTS


def test_server_that_is_gone_raises_its_alert(story):
    assert "PiserveDown" in story.dead


@pytest.mark.parametrize(
    "record",
    [
        rule["record"]
        for group in yaml.safe_load((SHIPPED / "recording.yml").read_text())[
            "groups"
        ]
        for rule in group["rules"]
    ],
)
def test_record_has_data(story, record):
    assert story.series(record)


@pytest.mark.parametrize(("panel", "target"), cases(gpu=False))
def test_panel_has_data(story, panel, target):
    data_of(story, panel, target)


@pytest.mark.parametrize(("panel", "target"), cases(gpu=True))
def test_gpu_panel_has_data_on_a_gpu(gpu_story, panel, target):
    found = data_of(gpu_story, panel, target)
    assert max(value for one in found for value in one["values"]) > 0


@pytest.mark.parametrize(("panel", "target"), cases(gpu=True))
def test_gpu_panel_is_empty_on_a_cpu_and_says_so(story, panel, target):
    assert story.series(as_grafana_asks(target["expr"])) == []
    assert panel["description"].startswith("No data where the policies run on")
    contract = (ROOT / "docs" / "contract.md").read_text()
    for metric in re.findall(r"piserve_(\w+)", target["expr"]):
        assert f"`{metric}" in contract or metric == "batch_rows_sum", metric


def test_shares_are_between_nothing_and_all(story, gpu_story):
    for row, panel, target in targets_by_row():
        if panel["fieldConfig"]["defaults"]["unit"] != "percentunit":
            continue
        told = gpu_story if is_gpu(row) else story
        for one in told.series(as_grafana_asks(target["expr"])):
            assert min(one["values"]) >= 0
            assert max(one["values"]) <= 1
