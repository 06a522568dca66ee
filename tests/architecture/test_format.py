# SPDX-License-Identifier: Apache-2.0
"""`make format` changes nothing of what is here."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_make_format_would_change_nothing():
    if not shutil.which("clang-format-14"):
        pytest.skip("SKIPPED: clang-format-14 is not installed")
    done = subprocess.run(
        ["make", "format", "CHECK=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
