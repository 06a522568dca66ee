# SPDX-License-Identifier: Apache-2.0
"""How much a clone of the tree takes."""

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 36 * 2**20


def tracked_files():
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("SKIPPED: no git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name]


def test_tracked_files_stay_below_36_mib():
    sizes = {
        path.relative_to(ROOT): path.lstat().st_size
        for path in tracked_files()
        if path.exists()
    }
    largest = sorted(sizes.items(), key=lambda item: -item[1])[:10]
    assert sum(sizes.values()) < LIMIT, largest
