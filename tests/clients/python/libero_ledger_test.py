# SPDX-License-Identifier: Apache-2.0
import json
import os

import pytest
from piserve.libero import EpisodeRecord, Ledger, LedgerError

RUN = {"suite": "s", "seed": 7}


def ended(task):
    return EpisodeRecord(task, 0, "success", 1, 0.5, [1.0], []).as_json()


def test_a_ledger_is_read_back(tmp_path):
    path = tmp_path / "new" / "ledger.jsonl"
    with Ledger(path, RUN) as ledger:
        assert ledger.episodes == []
        ledger.add(ended(1))
        ledger.add(ended(2))
    with Ledger(path, RUN) as ledger:
        assert ledger.episodes == [ended(1), ended(2)]


def test_an_episode_is_on_disk_when_add_returns(tmp_path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(real(fd)))
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, RUN) as ledger:
        before = len(synced)
        ledger.add(ended(1))
        assert len(synced) == before + 1
        assert json.loads(path.read_text().splitlines()[-1]) == ended(1)


@pytest.mark.parametrize("kept", [1, 5, 11])
def test_a_line_that_was_cut_off_is_dropped(tmp_path, kept):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, RUN) as ledger:
        ledger.add(ended(1))
    with open(path, "ab") as file:
        file.write(b'{"task": 2}\n'[:kept])
    with Ledger(path, RUN) as ledger:
        assert ledger.episodes == [ended(1)]
        ledger.add(ended(3))
    with Ledger(path, RUN) as ledger:
        assert ledger.episodes == [ended(1), ended(3)]


def test_a_header_that_was_cut_off_begins_anew(tmp_path):
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"format": 1, "sui')
    with Ledger(path, RUN) as ledger:
        assert ledger.episodes == []
    assert json.loads(path.read_text()) == {"format": 1, **RUN}


def test_another_runs_ledger_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "ledger.jsonl"
    Ledger(path, RUN).close()
    before = path.read_bytes()
    with pytest.raises(LedgerError, match="seed is 7, want 8"):
        Ledger(path, {**RUN, "seed": 8})
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", [b"nonsense", b"[1]", b"\xff"])
def test_a_damaged_line_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "ledger.jsonl"
    Ledger(path, RUN).close()
    with open(path, "ab") as file:
        file.write(line + b'\n{"task": 1}\n')
    with pytest.raises(LedgerError, match="line 2"):
        Ledger(path, RUN)


@pytest.mark.parametrize(
    "episode",
    [
        {},
        {"task": 1},
        {**ended(1), "reward": 1.0},
        {**RUN, "format": 1},
    ],
)
def test_a_line_that_is_no_episode_is_refused_by_its_number(tmp_path, episode):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, RUN) as ledger:
        ledger.add(ended(0))
        ledger.add(episode)
    with pytest.raises(LedgerError, match="line 3"):
        Ledger(path, RUN)


def test_two_runs_cannot_write_one_ledger(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path, RUN), pytest.raises(LedgerError, match="another run"):
        Ledger(path, RUN)
    Ledger(path, RUN).close()
