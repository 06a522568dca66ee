# SPDX-License-Identifier: Apache-2.0
"""A real Prometheus with the shipped configuration, in a hurry."""

from __future__ import annotations

import json
import math
import pathlib
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import yaml
from server_process import ROOT

SHIPPED = ROOT / "deploy" / "prometheus"
_WINDOW = re.compile(r"\[(\d+[smhd])\]")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def tool(name: str) -> str:
    """prometheus or promtool as deploy/setup unpacks it, else the system's."""
    packed = ROOT / ".deps" / "prometheus" / "usr" / "bin" / name
    found = str(packed) if packed.exists() else shutil.which(name)
    assert found, f"{name} is missing; deploy/setup/setup.sh unpacks it"
    return found


def hurried(rules: dict[str, Any], factor: int) -> dict[str, Any]:
    """`rules` with every window and `for` divided by `factor`; names stay."""

    def shorter(duration: str) -> str:
        seconds = int(duration[:-1]) * _SECONDS[duration[-1]]
        return f"{seconds * 1000 // factor}ms"

    def hurry(rule: dict[str, str]) -> dict[str, str]:
        expr = _WINDOW.sub(lambda m: f"[{shorter(m[1])}]", rule["expr"])
        out = {**rule, "expr": expr}
        if "for" in rule:
            out["for"] = shorter(rule["for"])
        return out

    return {
        "groups": [
            {**group, "rules": [hurry(rule) for rule in group["rules"]]}
            for group in rules["groups"]
        ]
    }


class PrometheusProcess:
    """Runs Prometheus while the context lasts.

    Configuration and rules are the shipped ones, but for the targets, the
    intervals (`interval` each) and the windows (divided by `factor`).
    """

    def __init__(
        self,
        folder: pathlib.Path,
        targets: Iterable[str],
        interval: str,
        factor: int,
    ) -> None:
        self._folder = folder
        config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        config["global"] = dict.fromkeys(config["global"], interval)
        (scrape,) = config["scrape_configs"]
        (static,) = scrape["static_configs"]
        static["targets"] = list(targets)
        for name in config["rule_files"]:
            rules = yaml.safe_load((SHIPPED / name).read_text())
            (folder / name).write_text(yaml.safe_dump(hurried(rules, factor)))
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{free.getsockname()[1]}"

    def __enter__(self) -> PrometheusProcess:
        self._log = (self._folder / "log").open("wb")
        self._process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={self._folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self._folder / 'data'}",
                f"--web.listen-address={self._address}",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self.wait_for(self._is_ready, 30, "Prometheus to be ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()

    def wait_for(
        self, done: Callable[[], bool], timeout: float, what: str
    ) -> None:
        """Returns once done() is true; fails after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline or self._process.poll() is not None:
                log = (self._folder / "log").read_text(errors="replace")
                raise AssertionError(f"waited in vain for {what}\n{log}")
            time.sleep(0.1)

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return self._alerts("firing")

    def raised(self) -> set[str]:
        """Names of the alerts that fire or are about to."""
        return self._alerts("firing", "pending")

    def series(
        self, expression: str, start: float, end: float
    ) -> list[dict[str, Any]]:
        """Labels and finite values of each series of a range query."""
        found = self._get(
            "query_range", query=expression, start=start, end=end, step="0.5"
        )["result"]
        out = []
        for one in found:
            values = [float(value) for _, value in one["values"]]
            values = [value for value in values if math.isfinite(value)]
            if values:
                out.append({"labels": one["metric"], "values": values})
        return out

    def _alerts(self, *states: str) -> set[str]:
        return {
            alert["labels"]["alertname"]
            for alert in self._get("alerts")["alerts"]
            if alert["state"] in states
        }

    def _is_ready(self) -> bool:
        try:
            urllib.request.urlopen(f"http://{self._address}/-/ready").close()
        except OSError:
            return False
        return True

    def _get(self, path: str, **parameters: object) -> Any:
        query = urllib.parse.urlencode(parameters)
        url = f"http://{self._address}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(url, timeout=30) as page:
                return json.load(page)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
