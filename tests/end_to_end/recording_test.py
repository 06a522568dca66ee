# SPDX-License-Identifier: Apache-2.0
"""What a server records can be repeated, and answers compared."""

import pytest
from serving import (
    PATIENT,
    config_text,
    run_client,
    serving,
    write_config,
)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A server, and the folder with two requests that it recorded."""
    folder = tmp_path_factory.mktemp("recorded")
    flag = write_config(folder, config_text("pi0_libero_tiny", **PATIENT))
    records = folder / "records"
    with serving(flag, f"--record={records}") as server:
        for start in (["--seed=3"], []):
            result = run_client(server, "policy_cli", "infer", *start)
            assert result.returncode == 0, result.stderr
    with serving(flag) as server:  # its records are written by now
        yield server, records


def test_each_request_is_one_file(recorded):
    _, records = recorded
    assert len(list(records.glob("*.rec"))) == 2


def test_replay_gives_the_same_bits(recorded):
    server, records = recorded
    result = run_client(server, "policy_cli", "replay", str(records))
    assert result.returncode == 0, result.stderr
    assert "0 of 2 compared answers differ" in result.stdout


def test_replay_notices_another_answer(recorded, tmp_path):
    server, records = recorded
    first = min(records.glob("*.rec"))
    # With another seed: appended fields win.
    mixed = tmp_path / "mixed.rec"
    seed = bytes([0x12, 10, 0x81, 1]) + bytes(range(8))
    mixed.write_bytes(first.read_bytes() + seed)
    result = run_client(server, "policy_cli", "replay", str(mixed))
    assert result.returncode == 5, result.stdout + result.stderr
    assert "1 of 1 compared answers differ" in result.stdout


def test_replay_names_a_file_that_is_no_recording(recorded, tmp_path):
    server, _ = recorded
    other = tmp_path / "other.rec"
    other.write_bytes(b"\xff\xff")
    result = run_client(server, "policy_cli", "replay", str(other))
    assert result.returncode == 1
    assert str(other) in result.stderr


def test_recordings_are_a_load(recorded):
    server, records = recorded
    result = run_client(
        server,
        "policy_load",
        f"--recording={records}",
        "--robots=3",
        "--loop=closed",
        "--rate=2",
        "--duration=2s",
        "--warmup=0s",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 wrong" in result.stdout
