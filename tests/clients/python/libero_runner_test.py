# SPDX-License-Identifier: Apache-2.0
"""Real worker processes, fake simulators, a fake server."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

import grpc
import libero_fakes
import pytest
from fake_server import FakeServer, libero_info, refuse, serving
from libero_fakes import TASKS, WINS_AT, FakeFactory
from piserve.libero import Episode, Ledger, Protocol, evaluate
from piserve.libero.runner import EvaluationError, _Member
from piserve.libero.worker import Served, Work

PROTOCOL = Protocol(max_steps=12, replan_steps=4)
PAIR = [Episode(0, 0), Episode(0, 1)]


class HealthyServer(FakeServer):
    """A FakeServer that a client may wait for."""

    def check(self, request, context):
        return b"\x08\x01"


@pytest.fixture
def server():
    return HealthyServer([libero_info()])


@contextlib.contextmanager
def served(server):
    with serving(server, health=server.check) as address:
        yield Served(address, timeout_s=5.0, ready_s=0.5)


def work_of(served_by, factory=None, films=""):
    factory = factory or FakeFactory()
    return Work(factory, TASKS, PROTOCOL, served_by, films=films)


def run(work, tmp_path, episodes=PAIR, **options):
    with Ledger(tmp_path / "ledger.jsonl", {}) as ledger:
        return evaluate(work, episodes, ledger, **options)


def outcomes(records):
    return [(r.task, r.trial, r.outcome) for r in records]


def test_episodes_of_several_tasks_run_in_several_processes(server, tmp_path):
    episodes = [Episode(t, i) for t in range(2) for i in range(2)]
    with served(server) as by:
        records = run(work_of(by), tmp_path, episodes, processes=2)
    assert outcomes(records) == [
        (t, i, "failure" if i else "success") for t, i in episodes
    ]
    assert [r.steps for r in records] == [WINS_AT, 12] * 2
    assert [len(r.infer_ms) for r in records] == [2, 3] * 2
    assert {r.robot_id for r in server.requests} == {"libero-0", "libero-1"}
    assert {r.prompt for r in server.requests} == {"do 0", "do 1"}


def test_the_same_episode_starts_from_the_same_noise(server, tmp_path):
    with served(server) as by:
        run(work_of(by), tmp_path / "a")
        first = [request.seed for request in server.requests]
        run(work_of(by), tmp_path / "b")
    again = [request.seed for request in server.requests][len(first) :]
    assert first == again
    assert len(set(first)) == len(first) == 5


def test_errors_of_the_server_are_tried_again_and_are_no_failure(
    server, tmp_path
):
    server.script = [refuse(grpc.StatusCode.INTERNAL)] * 2
    with served(server) as by:
        (record,) = run(work_of(by), tmp_path, PAIR[:1], attempts=3)
    assert record.outcome == "success"
    assert len(record.errors) == 2
    assert "PolicyFailure" in record.errors[0]


def test_an_episode_that_never_ends_is_infrastructure(server, tmp_path):
    server.script = [refuse(grpc.StatusCode.INTERNAL)] * 2
    with served(server) as by:
        lost, failed = run(work_of(by), tmp_path, attempts=2)
        assert (lost.outcome, len(lost.errors)) == ("infrastructure", 2)
        assert failed.outcome == "failure"
        first, second = run(work_of(by), tmp_path)
    assert first.outcome == "success"
    assert second.as_json() == failed.as_json(), "it was run again"


def test_a_server_that_stays_away_ends_the_run(tmp_path):
    by = Served("127.0.0.1:1", ready_s=0.01)
    episodes = [Episode(0, i) for i in range(9)]
    records = run(work_of(by), tmp_path, episodes, attempts=1, patience=2)
    assert outcomes(records) == [(0, i, "infrastructure") for i in range(2)]
    assert "PolicyUnavailable" in records[0].errors[0]


def test_a_policy_that_does_not_fit_ends_the_run_at_once(server, tmp_path):
    server.script = [refuse(grpc.StatusCode.INVALID_ARGUMENT)]
    with served(server) as by, pytest.raises(EvaluationError, match="task 0"):
        run(work_of(by), tmp_path)
    assert len(server.requests) == 1
    with Ledger(tmp_path / "ledger.jsonl", {}) as ledger:
        assert ledger.episodes == []


@pytest.mark.parametrize(
    "fault, said",
    [
        ("raises", "RuntimeError: the simulator is broken"),
        ("dies", "process ended with 9"),
    ],
)
def test_a_broken_simulator_is_replaced(server, tmp_path, fault, said):
    factory = FakeFactory(str(tmp_path), fault)
    with served(server) as by:
        (record,) = run(work_of(by, factory), tmp_path, PAIR[:1])
    assert record.outcome == "success"
    assert len(record.errors) == 1
    assert said in record.errors[0]


def test_a_simulator_that_hangs_is_killed(server, tmp_path, monkeypatch):
    struck = tmp_path / "struck"
    seen = []

    def seconds(member):  # a clock that leaps once the first process hangs
        pid = member._process.pid
        seen.append(pid)
        return 1e9 if struck.exists() and pid == seen[0] else 0.0

    monkeypatch.setattr(_Member, "seconds", property(seconds))
    factory = FakeFactory(str(tmp_path), "hangs")
    with served(server) as by:
        (record,) = run(work_of(by, factory), tmp_path, PAIR[:1])
    assert record.outcome == "success"
    assert len(record.errors) == 1
    assert "killed" in record.errors[0]


def test_films_show_what_the_policy_saw(server, tmp_path):
    image = pytest.importorskip("PIL.Image")
    with served(server) as by:
        run(work_of(by, films=str(tmp_path / "films")), tmp_path)
    names = sorted(path.name for path in (tmp_path / "films").iterdir())
    assert names == ["task00_trial00_success.gif", "task00_trial01_failure.gif"]
    with image.open(tmp_path / "films" / names[1]) as film:
        assert film.size == (4, 2)


_KILLED = """
import os, sys
from libero_fakes import TASKS, FakeFactory
from piserve.libero import Episode, Ledger, Protocol, evaluate
from piserve.libero.worker import Served, Work

def die(record):
    if record.trial == 1:
        os.kill(os.getpid(), 9)

if __name__ == "__main__":
    protocol = Protocol(max_steps=12, replan_steps=4)
    factory = FakeFactory(*sys.argv[3:])
    work = Work(factory, TASKS, protocol, Served(sys.argv[1]))
    episodes = [Episode(0, i) for i in range(4)]
    with Ledger(sys.argv[2], {}) as ledger:
        evaluate(work, episodes, ledger, on_record=die)
"""


def start_to_be_killed(tmp_path, *arguments):
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    folders = [os.path.dirname(libero_fakes.__file__), *sys.path]
    return subprocess.Popen(
        [sys.executable, script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
    )


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_running(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_simulators_end_with_a_run_that_was_killed(server, tmp_path):
    struck = tmp_path / "struck"
    with served(server) as by:
        path = tmp_path / "ledger.jsonl"
        run = start_to_be_killed(tmp_path, by.server, path, tmp_path, "hangs")
        wait_for(lambda: struck.exists() and struck.read_text().endswith("\n"))
        run.kill()
        run.wait()
        wait_for(lambda: not is_running(int(struck.read_text())))


def test_a_run_that_was_killed_continues_where_it_was(server, tmp_path):
    path = tmp_path / "ledger.jsonl"
    with served(server) as by:
        killed = start_to_be_killed(tmp_path, by.server, path)
        assert killed.wait(timeout=120) == -9
        before = path.read_bytes()
        assert len(before.splitlines()) == 3  # what it is, and two episodes
        episodes = [Episode(0, i) for i in range(4)]
        seen = []
        with Ledger(path, {}) as ledger:
            records = evaluate(
                work_of(by), episodes, ledger, on_record=seen.append
            )
    assert [r.trial for r in seen] == [2, 3]
    assert [r.outcome for r in records] == ["success", "failure"] * 2
    assert path.read_bytes().startswith(before)
