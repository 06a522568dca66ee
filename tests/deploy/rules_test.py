# SPDX-License-Identifier: Apache-2.0
"""The shipped Prometheus rules: sound, tested, and their tests able to fail."""

import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_process import SHIPPED, hurried, tool
from server_process import ROOT

FILES = ("recording", "alerts")


def promtool(*arguments, folder=SHIPPED):
    return subprocess.run(
        [tool("promtool"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def rules_of(name):
    groups = yaml.safe_load((SHIPPED / f"{name}.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_configuration_is_sound():
    done = promtool("check", "config", "--lint-fatal", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", FILES)
def test_unit_tests_pass(name):
    done = promtool("test", "rules", f"{name}_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def failing(tmp_path, name, expression):
    """What promtool says when every rule of a file has this expression."""
    shutil.copytree(SHIPPED, tmp_path, dirs_exist_ok=True)
    rules = yaml.safe_load((SHIPPED / f"{name}.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = expression
            rule.pop("for", None)
    (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(rules))
    done = promtool("test", "rules", f"{name}_test.yml", folder=tmp_path)
    return done.stdout + done.stderr


@pytest.mark.parametrize("expression", ("vector(0) > 1", "vector(1)"))
def test_alert_that_is_silent_or_always_on_is_noticed(tmp_path, expression):
    output = failing(tmp_path, "alerts", expression)
    noticed = set(re.findall(r"alertname: (\w+), time", output))
    assert noticed == {rule["alert"] for rule in rules_of("alerts")}


def test_record_with_another_value_is_noticed(tmp_path):
    output = failing(tmp_path, "recording", "vector(42)")
    noticed = set(re.findall(r'expr: "[^"]*?(job\w*:[\w:]+)', output))
    assert noticed == {rule["record"] for rule in rules_of("recording")}


def test_every_alert_is_explained_to_operators():
    page = (ROOT / "docs" / "operations.md").read_text()
    for rule in rules_of("alerts"):
        assert f"`{rule['alert']}`" in page
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]


def test_hurrying_changes_durations_and_nothing_else():
    rule = {
        "record": "job:x:rate5m",
        "expr": "rate(x[5m]) > 1 * 2",
        "for": "1h",
    }
    (group,) = hurried({"groups": [{"name": "g", "rules": [rule]}]}, 100)[
        "groups"
    ]
    assert group["rules"] == [
        {"record": "job:x:rate5m", "expr": "rate(x[3000ms]) > 1 * 2"}
        | {"for": "36000ms"}
    ]
