# SPDX-License-Identifier: Apache-2.0
"""The bundle for a GPU machine: where it is made from, how large it may be."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
_GOLDEN = "tests/golden"
_CONFIG = "deploy/config/pi0_engine.textproto"
_MIB = 1 << 20


@pytest.fixture(name="checkout")
def _checkout(tmp_path: Path) -> Path:
    """A checkout with small goldens, whose programs need no collecting."""
    checkout = tmp_path / "with space"
    shutil.copytree(_ROOT / "deploy/bundle", checkout / "deploy/bundle")
    _program(checkout / "deploy/bundle/collect.sh", 'mkdir -p "$1/bin"')
    for name in ("tiny_pi0", "tiny_pi05", "tokenizer", "full"):
        (checkout / _GOLDEN / name).mkdir(parents=True)
    (checkout / _GOLDEN / "images.safetensors").write_text("pixels")
    (checkout / _CONFIG).parent.mkdir()
    (checkout / _CONFIG).write_text("policies {}")
    return checkout


def _program(path: Path, body: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _archive_of(size: int, tools: Path) -> None:
    """Lets `tar` give an archive of `size` bytes."""
    _program(tools / "tar", f'truncate -s {size} "$4"')


def _make(checkout: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "deploy/bundle/make.sh", "build", "out/piserve"],
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}/tools:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(name="elsewhere")
def _elsewhere(tmp_path: Path) -> Path:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "out").mkdir(parents=True)
    return elsewhere


def test_it_is_made_from_its_checkout_wherever_it_is_started(
    checkout: Path, elsewhere: Path
) -> None:
    result = _make(checkout, elsewhere)
    assert result.returncode == 0, result.stderr
    out = elsewhere / "out"
    assert (out / "piserve" / _GOLDEN / "images.safetensors").exists()
    assert (out / "piserve" / _CONFIG).read_text() == "policies {}"
    assert (out / "piserve/run.sh").exists()
    assert (out / "piserve.tar.xz").stat().st_size > 0


@pytest.mark.parametrize(
    ("size", "code"), [(24 * _MIB, 0), (24 * _MIB + 1, 1), (31 * _MIB, 1)]
)
def test_an_archive_that_is_too_large_is_refused(
    checkout: Path, elsewhere: Path, size: int, code: int
) -> None:
    _archive_of(size, elsewhere / "tools")
    result = _make(checkout, elsewhere)
    assert result.returncode == code
    if code:
        line = result.stderr.strip()
        assert f"got {size} bytes" in line
        assert f"want at most {24 * _MIB}" in line and "\n" not in line
