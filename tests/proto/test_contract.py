# SPDX-License-Identifier: Apache-2.0
"""The contract follows buf's rules and breaks no client.

baseline.binpb is the contract that clients were last promised, as an image that
buf built from proto/. A change that adds something passes; afterwards renew the
baseline, so that what was added is promised too:

    buf build proto --exclude-source-info -o tests/proto/baseline.binpb
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto"
BASELINE = pathlib.Path(__file__).with_name("baseline.binpb")
POLICY = "piserve/v1/policy.proto"


def buf(*arguments):
    # Beside the Python that runs the tests, where buf-bin puts it.
    beside = pathlib.Path(sys.executable).with_name("buf")
    program = os.environ.get("BUF") or (
        str(beside) if beside.exists() else shutil.which("buf")
    )
    assert program, "buf is not installed: pip install buf-bin"
    return subprocess.run(
        [program, *map(str, arguments)], capture_output=True, text=True
    )


def breaking(folder):
    return buf("breaking", folder, "--against", BASELINE)


@pytest.fixture
def edited(tmp_path):
    """Returns a function that edits a copy of the contract."""
    folder = tmp_path / "proto"
    shutil.copytree(PROTO, folder)

    def edit(pattern, replacement):
        path = folder / POLICY
        text, count = re.subn(pattern, replacement, path.read_text(), count=1)
        assert count == 1, pattern
        path.write_text(text)
        return folder

    return edit


def test_the_contract_follows_bufs_rules():
    result = buf("lint", PROTO)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_contract_breaks_no_client():
    result = breaking(PROTO)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_baseline_holds_all_of_the_contract(tmp_path):
    # The other way round: what the baseline lacks would break it.
    image = tmp_path / "now.binpb"
    built = buf("build", PROTO, "--exclude-source-info", "-o", image)
    assert built.returncode == 0, built.stderr
    result = buf("breaking", BASELINE, "--against", image)
    assert result.returncode == 0, (
        "renew tests/proto/baseline.binpb:\n" + result.stdout + result.stderr
    )


@pytest.mark.parametrize(
    "pattern, replacement",
    [
        (r"uint64 sequence = 6;", "uint64 sequence = 60;"),
        (r"uint64 sequence = 6;", "string sequence = 6;"),
        (r"  uint64 sequence = 6;\n", ""),
        (r"REQUEST_CLASS_BULK = 3;", "REQUEST_CLASS_BULK = 4;"),
        (r"  rpc GetPolicyInfo\(.*\n", ""),
        (
            r"returns \(stream InferStreamResponse\)",
            "returns (InferStreamResponse)",
        ),
    ],
)
def test_what_would_break_a_client_is_found(edited, pattern, replacement):
    result = breaking(edited(pattern, replacement))
    assert result.returncode != 0
    assert POLICY in result.stdout


def test_an_added_field_breaks_nobody(edited):
    folder = edited(
        r"uint64 sequence = 6;", "uint64 sequence = 6;\n  string mood = 19;"
    )
    result = breaking(folder)
    assert result.returncode == 0, result.stdout


def test_only_protobufs_well_known_types_and_our_own_are_imported():
    for path in PROTO.rglob("*.proto"):
        for name in re.findall(r'^import "([^"]+)"', path.read_text(), re.M):
            ours = name.startswith(("google/protobuf/", "piserve/"))
            assert ours, f"{path.name}: {name}"
