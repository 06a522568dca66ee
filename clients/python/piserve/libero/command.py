# SPDX-License-Identifier: Apache-2.0
"""The command piserve-libero."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import re
import sys
from typing import Any, Callable, Dict, List, NoReturn, Optional, Set

from piserve import PolicyError
from piserve._proto import policy_pb2
from piserve.worlds.pictures import PictureError, save_png

from .environment import Environment, Task
from .ledger import Ledger, LedgerError
from .plot import plot
from .progress import Progress
from .protocol import (
    ACTION_DIM,
    MAX_STEPS,
    PRIVILEGED_BLOCK,
    STATE_DIM,
    Protocol,
)
from .report import Report
from .runner import EvaluationError, evaluate
from .schedule import Episode
from .simulator import SimulatorFactory, SimulatorMissing, tasks_of, trials_of
from .worker import Served, Work

COMPLETE, REFUSED, INCOMPLETE = 0, 1, 2  # exit statuses

MakeEnvironment = Callable[[int], Environment]


def main(arguments: Optional[List[str]] = None) -> int:
    """Evaluates a served policy on a suite of LIBERO.

    0; 1 if something is wrong, does not fit or is missing; 2 if episodes were
    lost to the infrastructure or not run: the same command continues.
    """
    args = parse(arguments)
    try:
        tasks = tasks_of(args.suite)
        starts = trials_of(args.suite, 0)
        if args.trials > starts:
            raise ValueError(
                f"--trials: got {args.trials}, want at most {starts}"
            )
        return run(args, tasks, SimulatorFactory(args.suite, args.seed))
    except KeyboardInterrupt:
        print("interrupted: the same command continues", file=sys.stderr)
        return INCOMPLETE
    except (
        EvaluationError,
        LedgerError,
        OSError,
        PictureError,
        PolicyError,
        SimulatorMissing,
        ValueError,
    ) as error:
        print(f"piserve-libero: {error}", file=sys.stderr)
        return REFUSED


def run(
    args: argparse.Namespace,
    suite: List[Task],
    make_environment: MakeEnvironment,
) -> int:
    """Evaluates on the given tasks and writes ledger, report and plot."""
    tasks = [suite[index] for index in chosen(args.tasks, len(suite))]
    protocol = Protocol(
        max_steps=MAX_STEPS[args.suite], replan_steps=args.replan
    )
    info = _policy(args)
    _check_fit(info, protocol)
    setting = _setting(args, protocol, info)
    folder = pathlib.Path(args.out)
    work = Work(
        make_environment=make_environment,
        tasks=tasks,
        protocol=protocol,
        served=_served(args, info),
        seed=args.seed,
        privileged=_is_privileged(info),
        films=str(folder / "films") if args.films else "",
    )
    episodes = [
        Episode(task.index, trial)
        for task in tasks
        for trial in range(args.trials)
    ]
    with Ledger(folder / "ledger.jsonl", setting) as ledger:
        progress = Progress(len(episodes), ledger.episodes, episodes)
        try:
            records = evaluate(
                work,
                episodes,
                ledger,
                processes=min(args.environments, len(episodes)),
                attempts=args.attempts,
                episode_timeout_s=args.episode_timeout,
                on_record=progress,
            )
        finally:
            progress.end()
    report = Report(tasks, args.trials, records)
    _write(folder, report, setting)
    print(report.table())
    _say_what_is_missing(report)
    return COMPLETE if report.total.complete else INCOMPLETE


def chosen(text: str, count: int) -> List[int]:
    """Task numbers from "0-3,7"; empty: all.

    Raises ValueError for what is not there.
    """
    numbers: Set[int] = set()
    for part in text.split(",") if text else [f"0-{count - 1}"]:
        if not re.fullmatch("[0-9]+(-[0-9]+)?", part):
            raise ValueError(f"--tasks: got {text!r}, want e.g. 0-3,7")
        first, _, last = part.partition("-")
        part_numbers = range(int(first), int(last or first) + 1)
        if not part_numbers or part_numbers[-1] >= count:
            raise ValueError(
                f"--tasks: got {text!r}, want numbers from 0 to {count - 1}"
            )
        numbers.update(part_numbers)
    return sorted(numbers)


def _served(
    args: argparse.Namespace, info: Optional[policy_pb2.PolicyInfo] = None
) -> Served:
    """Later calls are held to the weights that `info` names."""
    return Served(
        server=args.server,
        policy=info.name if info else args.policy,
        model_digest=info.model_digest if info else "",
        timeout_s=args.timeout,
        tls_root=args.tls_root,
        api_key_file=args.api_key_file,
    )


def _policy(args: argparse.Namespace) -> policy_pb2.PolicyInfo:
    with _served(args).connect() as client:
        client.wait_until_ready(args.timeout)
        return client.policy_info()


def _check_fit(info: policy_pb2.PolicyInfo, protocol: Protocol) -> None:
    action_dim = sum(block.size for block in info.action)
    state_dim = sum(block.size for block in info.state)
    cameras = {camera.name for camera in info.cameras}
    if "observation/image" not in cameras or action_dim != ACTION_DIM:
        raise ValueError(
            f"policy {info.name!r} has cameras {sorted(cameras)} and "
            f"{action_dim} actions: not a policy for LIBERO"
        )
    if state_dim != STATE_DIM and not _is_privileged(info):
        raise ValueError(
            f"policy {info.name!r} takes {state_dim} numbers of state, "
            f"want {STATE_DIM}"
        )
    if info.action_horizon < protocol.replan_steps:
        raise ValueError(
            f"policy {info.name!r} answers {info.action_horizon} actions, "
            f"want at least --replan {protocol.replan_steps}"
        )


def _is_privileged(info: policy_pb2.PolicyInfo) -> bool:
    return any(block.name == PRIVILEGED_BLOCK for block in info.state)


def _setting(
    args: argparse.Namespace,
    protocol: Protocol,
    info: policy_pb2.PolicyInfo,
) -> Dict[str, Any]:
    """What must be equal for two runs to be one."""
    return {
        "suite": args.suite,
        "seed": args.seed,
        **vars(protocol),
        "policy": info.name,
        "model_digest": info.model_digest,
        "precision": info.precision,
        "privileged": _is_privileged(info),
    }


def _write(
    folder: pathlib.Path, report: Report, setting: Dict[str, Any]
) -> None:
    text = json.dumps(
        {
            "date": datetime.date.today().isoformat(),
            **setting,
            **report.as_json(),
        },
        indent=1,
    )
    part = folder / "report.json.part"
    part.write_text(text + "\n")
    os.replace(part, folder / "report.json")
    title = f"{setting['suite']}: {setting['policy']}"
    save_png(folder / "tasks.png", plot(report, title))


def _say_what_is_missing(report: Report) -> None:
    total = report.total
    if not total.complete:
        print(
            f"incomplete: {total.infrastructure} episodes lost to the "
            f"infrastructure, {total.not_run} not run; "
            "the same command continues",
            file=sys.stderr,
        )


class _Parser(argparse.ArgumentParser):
    """Exits with REFUSED: argparse's own 2 would say that more can be done."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(REFUSED, f"{self.prog}: error: {message}\n")


def parse(arguments: Optional[List[str]]) -> argparse.Namespace:
    """The command line; exits with 1 where it is wrong."""
    parser = _Parser(
        prog="piserve-libero",
        description="Evaluates a served policy on LIBERO by openpi's protocol. "
        "Writes ledger.jsonl, report.json and tasks.png to --out; the same "
        "command continues where an earlier one ended.",
    )
    add = parser.add_argument
    add("--suite", choices=sorted(MAX_STEPS), default="libero_spatial")
    add("--tasks", default="", metavar="0-3,7", help="default: all")
    add("--trials", type=positive, default=50, help="of each task")
    add("--seed", type=seed, default=7)
    add("--replan", type=positive, default=5, help="actions of each chunk")
    add("--out", required=True, metavar="FOLDER")
    add("--films", action="store_true", help="GIFs of what the policy saw")
    add("--environments", type=positive, default=1, help="at a time")
    add("--attempts", type=positive, default=3, help="at each episode")
    add(
        "--episode-timeout",
        type=float,
        default=1800.0,
        metavar="SECONDS",
        help="after which a simulator is taken for hung",
    )
    served = parser.add_argument_group("the server")
    add = served.add_argument
    add("--server", default="127.0.0.1:50051", metavar="HOST:PORT")
    add("--policy", default="", help="if it has several")
    add("--timeout", type=float, default=30.0, help="of a call, seconds")
    add("--tls-root", default="", metavar="FILE", help="PEM; turns TLS on")
    add("--api-key-file", default="", metavar="FILE")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A count from the command line."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"got {value}, want at least 1")
    return value


def seed(text: str) -> int:
    """A seed that leaves room for task, trial and call beside it."""
    value = int(text)
    if not 0 <= value < 1 << 16:
        raise argparse.ArgumentTypeError(f"got {value}, want 0 to 65535")
    return value
