# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
from libero_fakes import TASKS
from piserve.libero import EpisodeRecord, Report
from piserve.libero.plot import plot
from piserve.worlds.statistics import percentiles_ms, wilson_interval


def record(task, trial, outcome, errors=(), infer_ms=(10.0, 20.0)):
    return EpisodeRecord(
        task, trial, outcome, 5, 1.0, list(infer_ms), list(errors)
    )


def report():
    """Task 0: 2 of 3 and one not run; task 1: 0 of 1, 2 lost; task 2: none."""
    return Report(
        TASKS,
        4,
        [
            record(0, 0, "success"),
            record(0, 1, "failure"),
            record(0, 2, "success", errors=["a", "b"]),
            record(1, 0, "failure"),
            record(1, 1, "infrastructure", "abc", ()),
            record(1, 2, "infrastructure", "abc", ()),
        ],
    )


def test_success_failure_and_infrastructure_are_counted_apart():
    total = report().total
    assert (total.success, total.failure, total.infrastructure) == (2, 2, 2)
    assert total.not_run == 6
    assert total.rate == 0.5
    assert not total.complete


def test_what_the_infrastructure_lost_does_not_lower_the_rate():
    with_losses = report().of_task(TASKS[1])
    assert with_losses.decided == 1
    assert with_losses.interval == wilson_interval(0, 1)


def test_a_task_without_an_end_has_no_rate():
    count = report().of_task(TASKS[2])
    assert count.decided == 0
    assert count.as_json()["success_rate"] is None
    assert count.interval == (0.0, 1.0)


def test_tasks_add_up_to_all():
    values = report().as_json()
    for name in ("success", "failure", "infrastructure", "not_run"):
        assert sum(t[name] for t in values["per_task"]) == values[name], name
    ends = ("success", "failure", "infrastructure", "not_run")
    assert sum(values[name] for name in ends) == values["episodes"] == 12


def test_a_complete_report_says_so():
    records = [record(0, i, "success") for i in range(2)]
    values = Report(TASKS[:1], 2, records).as_json()
    assert values["complete"] is True
    assert values["success_rate"] == 1.0
    assert values["interval_95"][1] == 1.0


def test_attempts_beyond_the_first_are_counted():
    assert report().as_json()["repeated_attempts"] == 2 + 2 + 2


def test_latency_is_over_all_calls():
    values = report().as_json()
    assert values["calls"] == 8
    assert values["latency_ms"]["p50"] == pytest.approx(15.0)
    assert values["latency_ms"]["p100"] == pytest.approx(20.0)
    assert values["per_episode"][0]["calls"] == 2


def test_the_report_is_plain_json():
    values = report().as_json()
    assert json.loads(json.dumps(values)) == values


def test_the_table_has_a_line_for_each_task_and_one_for_all():
    lines = [" ".join(x.split()) for x in report().table().splitlines()]
    assert lines[2] == "0 do 0 2 of 3 20.8 to 93.9 % -, 1 not run"
    assert lines[3] == "1 do 1 0 of 1 0.0 to 79.3 % 2, 1 not run"
    assert lines[4] == "2 do 2 0 of 0 - -, 4 not run"
    assert lines[-1] == "all 2 of 4 15.0 to 85.0 % 2, 6 not run"


def test_the_plot_has_a_bar_as_long_as_the_rate():
    pytest.importorskip("PIL.Image")
    picture = plot(report(), "a title")
    blue = (picture == (86, 140, 214)).all(-1)
    longest = [int(row.sum()) for row in blue]
    top = 52 + 17 - 7  # above the whiskers of the first task
    assert longest[top] == pytest.approx(400 * 2 / 3, abs=2)
    assert longest[top + 34] <= 1  # 0 of 1
    assert longest[top + 3 * 34] == pytest.approx(400 * 0.5, abs=2)
    assert picture.dtype == np.uint8


def test_an_interval_is_wilsons():
    low, high = wilson_interval(9, 10)
    assert (low, high) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(0, 40)[0] == 0.0
    assert wilson_interval(40, 40)[1] == 1.0


def test_percentiles_of_nothing_are_none():
    assert percentiles_ms([]) == {}
