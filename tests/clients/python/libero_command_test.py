# SPDX-License-Identifier: Apache-2.0
"""The command from end to end, with a fake simulator."""

import json

import pytest
from fake_server import droid_info, libero_info, serving
from libero_fakes import TASKS, FakeFactory
from libero_runner_test import HealthyServer
from piserve.libero import command
from piserve.libero.command import chosen, main, parse, run


@pytest.fixture
def evaluate(tmp_path):
    """Runs the command against a server that hosts `info`."""

    def call(*options, info=None, factory=None):
        server = HealthyServer([info or libero_info()])
        with serving(server, health=server.check) as address:
            args = parse(
                [
                    *("--server", address, "--out", str(tmp_path / "out")),
                    *("--trials", "2", "--replan", "4", "--timeout", "10"),
                    *("--suite", "libero_object", *options),
                ]
            )
            status = run(args, TASKS, factory or FakeFactory())
        return status, server

    return call


def test_ledger_report_and_plot_are_written(evaluate, tmp_path, capsys):
    pytest.importorskip("PIL.Image")
    status, _ = evaluate("--tasks", "0")
    assert status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["suite"] == "libero_object"
    assert report["max_steps"] == 280
    assert report["model_digest"] == "d0"
    assert report["privileged"] is False
    assert (report["success"], report["failure"]) == (1, 1)
    assert (tmp_path / "out" / "tasks.png").stat().st_size > 1000
    assert len((tmp_path / "out" / "ledger.jsonl").open().readlines()) == 3
    out, err = capsys.readouterr()
    assert "1 of 2" in out
    assert "episode 2/2  success 1/2" in err


def test_the_same_command_continues_and_asks_for_nothing_done(
    evaluate, tmp_path, capsys
):
    pytest.importorskip("PIL.Image")
    evaluate("--tasks", "0")
    first = (tmp_path / "out" / "ledger.jsonl").read_bytes()
    status, server = evaluate("--tasks", "0")
    assert status == 0
    assert server.requests == []
    assert (tmp_path / "out" / "ledger.jsonl").read_bytes() == first
    assert "continuing: 2 of 2 episodes are done" in capsys.readouterr().err


def test_other_weights_do_not_continue_a_run(evaluate):
    pytest.importorskip("PIL.Image")
    evaluate("--tasks", "0")
    other = libero_info()
    other.model_digest = "d1"
    with pytest.raises(command.LedgerError, match="model_digest is 'd0'"):
        evaluate("--tasks", "0", info=other)


def test_lost_episodes_are_said_and_change_the_exit_status(evaluate, capsys):
    pytest.importorskip("PIL.Image")
    broken = FakeFactory("", "raises")
    status, _ = evaluate("--tasks", "0", "--attempts", "1", factory=broken)
    assert status == 2
    out, err = capsys.readouterr()
    assert "0 of 0" in out
    assert "2 episodes lost to the infrastructure, 0 not run" in err


def test_a_policy_for_another_robot_is_refused(evaluate):
    with pytest.raises(ValueError, match="not a policy for LIBERO"):
        evaluate(info=droid_info())


def test_a_chunk_shorter_than_replan_is_refused(evaluate):
    with pytest.raises(ValueError, match="answers 4 actions"):
        evaluate("--replan", "5")


def test_tasks_are_chosen_by_number():
    assert chosen("", 3) == [0, 1, 2]
    assert chosen("0-2,7", 10) == [0, 1, 2, 7]
    for wrong in ("3", "2-1", "0-3"):
        with pytest.raises(ValueError, match="want numbers from 0 to 2"):
            chosen(wrong, 3)
    for wrong in ("x", "-1", "0-", "1,", "0--2"):
        with pytest.raises(ValueError, match="want e\\.g\\."):
            chosen(wrong, 3)


@pytest.mark.parametrize(
    "wrong", [["--suite", "libero_objct"], ["--trials", "0"], ["--what"]]
)
def test_a_wrong_command_line_is_no_reason_to_continue(wrong, capsys):
    """A script that repeats the command while it exits with 2 must end."""
    with pytest.raises(SystemExit) as end:
        main(["--out", "x", *wrong])
    assert end.value.code == 1
    assert wrong[0] in capsys.readouterr().err


def test_defaults_are_openpis():
    args = parse(["--out", "x"])
    assert (args.suite, args.trials) == ("libero_spatial", 50)
    assert (args.seed, args.replan, args.tasks) == (7, 5, "")


def test_without_libero_the_command_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "libero", None)
    assert main(["--out", "x"]) == 1
    assert "pip install 'clients/python[libero]'" in capsys.readouterr().err
