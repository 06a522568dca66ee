# SPDX-License-Identifier: Apache-2.0
"""A setup that fails says so, and does not count what failed as installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Path:
    """A checkout whose system packages are all there."""
    checkout = tmp_path / "with space"
    shutil.copytree(_ROOT / "deploy/setup", checkout / "deploy/setup")
    (checkout / "deploy/setup/packages.txt").write_text("bash\n")
    (checkout / "tests").mkdir()
    shutil.copy(_ROOT / "tests/requirements.txt", checkout / "tests")
    return checkout


def _install_python(checkout: Path, exit_code: int) -> None:
    python = checkout / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\necho asked: $*\nexit {exit_code}\n")
    python.chmod(0o755)


def _set_up(checkout: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "deploy/setup/setup.sh"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_download_that_fails_ends_the_setup(checkout: Path) -> None:
    _install_python(checkout, exit_code=1)
    result = _set_up(checkout)
    assert result.returncode == 1
    assert "[2/7] Python environment (.venv) ... failed" in result.stderr
    assert "asked: -m pip" in result.stderr  # the step's own output
    assert "[3/7]" not in result.stderr
    assert not list((checkout / ".deps").glob("*.version"))
