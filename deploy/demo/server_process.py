# SPDX-License-Identifier: Apache-2.0
"""A policy_server of this machine, from start to clean stop."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import urllib.request
from typing import Dict, List, Optional, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIGS = ROOT / "deploy" / "config"
LISTENERS = ("public", "probe", "admin", "http")


class ServerFailed(RuntimeError):
    """The server did not start, or did not stop as it should."""


@dataclasses.dataclass(frozen=True)
class Addresses:
    """Where a server listens, "127.0.0.1:port" each."""

    public: str
    probe: str
    admin: str
    http: str
    websocket: str = ""  # empty: off


class ServerProcess:
    """Runs a server binary on free ports while the context lasts.

    Raises ServerFailed if it is not listening within `start_timeout` seconds;
    wait_until_ready() tells when it is warm.
    """

    def __init__(
        self,
        binary: pathlib.Path,
        arguments: Sequence[str],
        start_timeout: float = 60.0,
    ) -> None:
        self._binary = binary
        self._arguments = list(arguments)
        self._start_timeout = start_timeout
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._folder = tempfile.TemporaryDirectory(prefix="piserve-")
        self._log = pathlib.Path(self._folder.name) / "log"
        self.addresses = Addresses("", "", "", "")

    def __enter__(self) -> ServerProcess:
        ports = pathlib.Path(self._folder.name) / "ports"
        command: List[str] = [
            str(self._binary),
            *self._arguments,
            f"--port_file={ports}",
            *(f"--{name}_address=127.0.0.1:0" for name in LISTENERS),
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self.addresses = self._wait_for(ports)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *unused: object) -> None:
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """All that the server has written so far."""
        return self._log.read_text(errors="replace")

    def terminate(self) -> None:
        """Asks it to drain and stop."""
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout: float = 40.0) -> int:
        """The exit code. ServerFailed if it does not end in time."""
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise ServerFailed(
                f"the server did not stop within {timeout:.0f} s\n{self.log}"
            ) from error

    def stop(self) -> None:
        """SIGTERM; ServerFailed unless it ends with exit code 0."""
        self.terminate()
        code = self.wait()
        if code != 0:
            raise ServerFailed(f"exit code {code}, want 0\n{self.log}")

    def get(self, path: str) -> str:
        """A page of the HTTP listener."""
        url = f"http://{self.addresses.http}{path}"
        with urllib.request.urlopen(url, timeout=10) as page:
            return str(page.read().decode())

    def wait_until_ready(self, timeout: float = 120.0) -> None:
        """Returns when requests are taken; ServerFailed if it ends before."""
        deadline = time.monotonic() + timeout
        while self.running and time.monotonic() < deadline:
            try:
                self.get("/healthz")
                return
            except OSError:  # not listening yet, or 503
                time.sleep(0.05)
        why = "not ready in time" if self.running else "ended at start"
        raise ServerFailed(f"{why}\n{self.log}")

    def _wait_for(self, ports: pathlib.Path) -> Addresses:
        assert self._process is not None
        deadline = time.monotonic() + self._start_timeout
        while not ports.exists():
            if self._process.poll() is not None:
                raise ServerFailed(
                    f"exit code {self._process.returncode} at start\n{self.log}"
                )
            if time.monotonic() > deadline:
                raise ServerFailed(f"not listening in time\n{self.log}")
            time.sleep(0.02)
        return Addresses(**_read_ports(ports.read_text()))


def _read_ports(text: str) -> Dict[str, str]:
    found = dict(line.split() for line in text.splitlines() if line.strip())
    return {name: f"127.0.0.1:{port}" for name, port in found.items()}


def metrics(page: str) -> Dict[str, float]:
    """Samples of a /metrics page by name with labels."""
    samples = {}
    for line in page.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    return samples
